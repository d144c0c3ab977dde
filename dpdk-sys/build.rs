fn main() {
    println!("cargo::metadata=version=none");
}
