//! Health checks of targets against a real kernel: its ARP, its TCP, a web server in Python and OpenSSL's TLS server, behind a TAP interface in
//! a namespace. Needs root; says so when it does not run.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::netns::{Namespaces, Running, ip};
use common::{prefix, skipped};
use sluicegate::gateway::checks::{Change, Checked, Checker, HealthCheck, Protocol, Snapshot, Stand};
use sluicegate::gateway::{State, TargetId};
use smoltcp::phy::{DeviceCapabilities, Medium, RxToken, TxToken};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Set in the namespace.
const INSIDE: &str = "SLUICEGATE_TEST_INSIDE";
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Where the kernel is; the second is one that nobody has.
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// The wire: what the kernel sends on its interface, and back.
struct Tap(SyncDevice);
struct Frame(Vec<u8>);
struct Out<'a>(&'a SyncDevice);

impl smoltcp::phy::Device for Tap {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Frame, Out<'_>)> {
        let mut frame = vec![0; 2048];
        let len = self.0.recv(&mut frame).ok()?;
        frame.truncate(len);
        Some((Frame(frame), Out(&self.0)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Out<'_>> {
        Some(Out(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        let _ = self.0.send(&frame); // a full queue loses it, as a wire would
        result
    }
}

/// A program in the background, ended with the test.
struct Server(Child);

impl Server {
    /// Waits until it listens.
    fn start(command: &mut Command, port: u16) -> Self {
        let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server"));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(SocketAddr::from((TARGET, port))).is_err() {
            assert!(Instant::now() < deadline, "nobody listens on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel as a target, and the checker's clock.
struct Scene {
    tap: Tap,
    began: Instant,
}

impl Scene {
    /// Checks until each target has had so many of them; the last word on each, and what changed.
    fn check(&mut self, settings: HealthCheck, targets: &[Ipv4Addr], checks: u64) -> (Snapshot, Vec<Change>) {
        let stand = Stand { mac: OURS, net: "10.77.0.1/24".parse().expect("a net"), router: None, mtu: 1500 };
        let mut checker = Checker::new(settings, stand, 1);
        let targets = targets.iter().zip(0..);
        let targets = targets.map(|(address, n)| Checked { id: TargetId(n), address: *address, mac: None });
        checker.set_targets(targets.collect(), self.began.elapsed());
        let (deadline, mut changes) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let now = self.began.elapsed();
            changes.extend(checker.poll(now, &mut self.tap));
            let snapshot = checker.snapshot(now);
            if snapshot.targets.iter().all(|target| target.checks >= checks) {
                // The last resets are on their way.
                return (snapshot, changes);
            }
            assert!(Instant::now() < deadline, "{snapshot:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What one check of the kernel comes to.
    fn once(&mut self, protocol: Protocol, port: u16, path: &str) -> String {
        let settings = HealthCheck { protocol, port, path: path.into(), ..quick() };
        let (snapshot, _) = self.check(settings, &[TARGET], 1);
        snapshot.targets[0].reason.clone().expect("a reason")
    }
}

/// Much time for an answer, little between checks.
fn quick() -> HealthCheck {
    HealthCheck {
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(20),
        jitter: Duration::ZERO,
        ..HealthCheck::default()
    }
}

#[test]
fn a_real_kernel_is_checked() {
    const TEST: &str = "a_real_kernel_is_checked";
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    for program in ["python3", "openssl"] {
        if Command::new(program)
            .arg(if program == "openssl" { "version" } else { "--version" })
            .output()
            .is_err()
        {
            return skipped(TEST, &format!("it needs {program}"));
        }
    }
    let Some(namespaces) = Namespaces::new(TEST) else { return };
    let output = Command::new("ip")
        .args(["netns", "exec", &namespaces.far])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("the test starts in the namespace");
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "inside:\n{said}");
}

/// The program on a kernel interface; its target is the kernel at the other end, where a web server comes and goes.
#[test]
fn a_gateway_checks_a_real_kernel() {
    let Some(namespaces) = Namespaces::new("a_gateway_checks_a_real_kernel") else { return };
    ip(&["-n", &namespaces.far, "address", "add", "10.77.0.2/24", "dev", "far"]).expect("an address");
    let serve = || {
        let mut server = Command::new("ip");
        server.args(["netns", "exec", &namespaces.far, "python3", "-m", "http.server", "8002"]);
        Server(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server"))
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    let text = format!(
        "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{}\"\n\
         [[port]]\nname = \"wan\"\ndevice = \"net_null0\"\n[[port]]\nname = \"lan\"\ndevice = \"net_null1\"\n\
         [[port]]\nname = \"targets\"\ndevice = \"net_af_packet0,iface=near\"\nmtu = 1500\n\
         [gateway]\nport = \"targets\"\naddress = \"10.77.0.1/24\"\n[flow]\ncapacity = 4096\n\
         [[endpoint]]\nid = 7\nlegs = [\"wan\", \"lan\"]\n[[target]]\naddress = \"10.77.0.2\"\n\
         [health_check]\nprotocol = \"http\"\nport = 8002\ninterval = \"500ms\"\nhealthy_threshold = 2\n",
        prefix("checks-live")
    );
    std::fs::write(&file, text).expect("a file");
    let mut program = Command::new("ip");
    program.args(["netns", "exec", &namespaces.near, env!("CARGO_BIN_EXE_sluicegate"), "gateway"]);
    let mut program = Running::start(program.arg(&file).args([
        "--json",
        "--stats-interval",
        "0s",
        "--set",
        "eal.lcores=[0,1]",
    ]));
    let mut said = || {
        let line = program.line("port");
        line["text"].as_str().expect("a sentence").to_owned()
    };
    let mac = Command::new("ip")
        .args(["netns", "exec", &namespaces.far, "cat", "/sys/class/net/far/address"])
        .output()
        .expect("its MAC address");
    let mac = String::from_utf8_lossy(&mac.stdout).trim().to_owned();
    let mut next = |wanted: &str| loop {
        let said = said();
        if said.contains("link") || said.contains("claims") {
            continue;
        }
        assert_eq!(said, wanted);
        break;
    };
    next(&format!("target 10.77.0.2 is reached at {mac}"));
    next("target 10.77.0.2 is unhealthy: connection refused");
    let server = serve();
    next("target 10.77.0.2 is healthy: HTTP 200");
    drop(server);
    next("target 10.77.0.2 is unhealthy: connection refused");
    program.signal("INT");
    assert!(program.wait().success());
}

fn inside() {
    let device = DeviceBuilder::new().name("target").layer(Layer::L2).mtu(1500).build_sync().expect("a TAP");
    device.set_nonblocking(true).expect("it does not block");
    ip(&["link", "set", "lo", "up"]).expect("loopback");
    ip(&["address", "add", "10.77.0.2/24", "dev", "target"]).expect("an address");
    ip(&["link", "set", "target", "up"]).expect("it comes up");
    let mac = std::fs::read_to_string("/sys/class/net/target/address").expect("its MAC address");
    let mut scene = Scene { tap: Tap(device), began: Instant::now() };
    let folder = tempfile::tempdir().expect("a folder");

    connections(&mut scene, mac.trim());
    pages(&mut scene, folder.path());
    tls(&mut scene, folder.path());
}

/// ARP, TCP, and what the far end sees of a check.
fn connections(scene: &mut Scene, mac: &str) {
    let listener = TcpListener::bind((TARGET, 8000)).expect("a listener");
    let settings = HealthCheck { port: 8000, ..quick() };
    let (snapshot, changes) = scene.check(settings, &[TARGET], 6);
    let target = &snapshot.targets[0];
    assert_eq!((target.state, target.failures, target.mac.as_deref()), (State::Healthy, 0, Some(mac)));
    assert!(
        matches!(&changes[..], [Change::Mac { .. }, Change::State { to: State::Healthy, .. }]),
        "{changes:?}"
    );
    // The handshake was completed, so the application saw a connection; then it was reset.
    let (mut connection, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip(), Ipv4Addr::new(10, 77, 0, 1));
    let error = connection.read(&mut [0; 16]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let settings = HealthCheck { port: 8001, timeout: Duration::from_millis(2500), ..quick() };
    let (snapshot, _) = scene.check(settings, &[TARGET, NOBODY], 2);
    let reasons: Vec<_> =
        snapshot.targets.iter().map(|target| target.reason.as_deref().expect("a reason")).collect();
    assert_eq!(reasons, ["connection refused", "timed out after 2500ms: nobody answers ARP for 10.77.0.3"]);
    assert!(snapshot.targets.iter().all(|target| target.state == State::Unhealthy), "{snapshot:?}");
}

fn pages(scene: &mut Scene, folder: &Path) {
    std::fs::write(folder.join("ready"), "yes\n").expect("a page");
    let mut server = Command::new("python3");
    server.args(["-m", "http.server", "8002", "--bind", "10.77.0.2", "--directory"]).arg(folder);
    let _server = Server::start(&mut server, 8002);
    assert_eq!(scene.once(Protocol::Http, 8002, "/ready"), "HTTP 200");
    assert_eq!(scene.once(Protocol::Http, 8002, "/else"), "HTTP 404");
    assert_eq!(scene.once(Protocol::Https, 8002, "/ready"), "TLS: what answers does not speak TLS");
}

fn tls(scene: &mut Scene, folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody", "-days", "1"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(folder)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (port, version) in [(8443, "-tls1_3"), (8444, "-tls1_2")] {
        let mut server = Command::new("openssl");
        server.args(["s_server", "-quiet", "-www", "-key", "key.pem", "-cert", "certificate.pem", version]);
        let _server =
            Server::start(server.args(["-accept", &format!("10.77.0.2:{port}")]).current_dir(folder), port);
        assert_eq!(scene.once(Protocol::Https, port, "/"), "HTTP 200", "{version}");
        let plain = scene.once(Protocol::Http, port, "/");
        assert!(!plain.starts_with("HTTP"), "{version}: {plain}");
    }
}
