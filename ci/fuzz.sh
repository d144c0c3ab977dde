#!/bin/sh
# Fuzzes every target for SECONDS each, or with 1000000x for so many inputs: ci/fuzz.sh SECONDS|INPUTSx [TARGET...]
# FUZZ_SEED=N makes every run try the same inputs in the same order, so that a finding in CI is the change's and not luck.
# Ends with 1 at the first finding; cargo-fuzz prints the input and how to repeat it. Found inputs stay in fuzz/corpus.
set -eu

amount=${1:?usage: ci/fuzz.sh SECONDS|INPUTSx [TARGET...]}
shift
case $amount in
*x) limit=-runs=${amount%x} ;;
*) limit=-max_total_time=$amount ;;
esac
cd "$(dirname "$0")/.."

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "ci/fuzz.sh: fuzzing needs the nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "ci/fuzz.sh: fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

if [ $# -eq 0 ]; then
    set -- $(cargo +nightly fuzz list)
fi
for target; do
    mkdir -p "fuzz/corpus/$target"
    if [ -f "fuzz/seeds/$target.txt" ]; then
        grep -v '^#' "fuzz/seeds/$target.txt" | while read -r name hex; do
            # Octal escapes are what every printf knows.
            escaped=$(echo "$hex" | fold -w 2 | while read -r byte; do printf '\\%03o' "0x$byte"; done)
            printf "$escaped" >"fuzz/corpus/$target/seed_$name"
        done
    fi
    if [ "$target" = config_toml ]; then
        cp pipelines/*.toml "fuzz/corpus/$target/"
        # And a gateway's file: the example of its document.
        sed -n '/^```toml$/,/^```$/{/^```/!p}' docs/gateway.md >"fuzz/corpus/$target/gateway.toml"
    fi
    dictionary=
    if [ -f "fuzz/${target%%_*}.dict" ]; then
        dictionary="-dict=fuzz/${target%%_*}.dict"
    fi
    seed=${FUZZ_SEED:+-seed=$FUZZ_SEED}
    echo "== $target: $amount"
    cargo +nightly fuzz run "$target" -- "$limit" -max_len=2048 -print_final_stats=1 $seed $dictionary
done
