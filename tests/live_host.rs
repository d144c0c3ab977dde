//! The built program on a kernel interface, and the kernel at the other end of a veth pair: ARP, ping, curl, checks that only connect,
//! a DHCP server and a TAP interface. Needs root; says so when it does not run.
//!
//! The near end has no address in the kernel, so whatever answers is not the kernel of the near namespace.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::golden::cases;
use common::netns::{Namespaces, PATIENCE, Running, ip};
use common::{assert_nothing_left, prefix, skipped};

const SERVER: &str = "10.254.11.102";
/// Set in the far end.
const FAR_END: &str = "SLUICEGATE_TEST_FAR_END";

/// The namespaces, with an address at the far end.
fn namespaces(test: &str) -> Option<Namespaces> {
    for program in ["ping", "curl"] {
        if Command::new(program).arg("--version").output().is_err()
            && Command::new(program).arg("-V").output().is_err()
        {
            skipped(test, &format!("it needs {program}"));
            return None;
        }
    }
    let namespaces = Namespaces::new(test)?;
    ip(&["-n", &namespaces.far, "address", "add", "10.254.11.60/24", "dev", "far"]).expect("an address");
    ip(&["netns", "exec", &namespaces.far, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0"])
        .expect("IPv6");
    ip(&["-n", &namespaces.far, "address", "add", "fd00:11::60/64", "dev", "far", "nodad"])
        .expect("an address");
    Some(namespaces)
}

/// The program in the near namespace, running.
fn start(namespaces: &Namespaces, folder: &std::path::Path, own: &str, port: &str, extra: &str) -> Running {
    let file = folder.join("live.toml");
    let text = format!(
        "[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{own}\"\n\
         [[port]]\ndevice = \"net_af_packet0,iface=near\"\nqueues = 1\nmtu = 1500\n{port}\n{}\n{extra}",
        common::TUNNEL
    );
    std::fs::write(&file, text).expect("a file");
    let mut program = Command::new("ip");
    program.args(["netns", "exec", &namespaces.near, env!("CARGO_BIN_EXE_sluicegate"), "run"]).arg(&file);
    let mut program = Running::start(program.args(["--json", "--stats-interval", "0s"]));
    assert_eq!(program.line("started")["ports"][0]["driver"], "net_af_packet");
    assert_eq!(program.line("health")["to"], "ready");
    program
}

/// Runs a command in the far namespace: exit code and all it says.
fn far(namespaces: &Namespaces, command: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("ip")
        .args(["netns", "exec", &namespaces.far])
        .args(command)
        .output()
        .expect("it starts");
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.code(), said)
}

/// Runs the part of this test that stands in the far namespace.
fn far_end(namespaces: &Namespaces, test: &str, part: &str) {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("ip")
        .args(["netns", "exec", &namespaces.far])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(FAR_END, part)
        .output()
        .expect("the far end starts");
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "the far end:\n{said}");
}

#[test]
fn checks_from_a_real_kernel_are_answered() {
    const TEST: &str = "checks_from_a_real_kernel_are_answered";
    if std::env::var_os(FAR_END).is_some() {
        return checks_under_traffic();
    }
    let Some(namespaces) = namespaces(TEST) else { return };
    let (folder, own) = (tempfile::tempdir().expect("a folder"), prefix("live-host"));
    let port = format!("address = \"{SERVER}/24\"\naddress6 = \"fd00:11::102/64\"");
    let extra = "[management]\ndrain_on_sigterm = true\ndrain_at_least = \"3s\"\ndrain_deadline = \"4s\"\n\
                 listen = \"127.0.0.1:9100\"\n";
    let mut program = start(&namespaces, folder.path(), &own, &port, extra);
    ip(&["netns", "exec", &namespaces.near, "ip", "link", "set", "lo", "up"]).expect("loopback");

    for target in [SERVER, "fd00:11::102"] {
        let (code, said) = far(&namespaces, &["ping", "-c", "10", "-i", "0.1", "-W", "5", target]);
        assert!(code == Some(0) && said.contains(" 0% packet loss"), "{said}");
    }
    let (_, said) = far(&namespaces, &["ping", "-c", "3", "-i", "0.1", "-s", "1400", SERVER]);
    assert!(said.contains(" 0% packet loss"), "{said}");
    let (_, said) = far(&namespaces, &["ip", "neighbour", "show", SERVER]);
    assert!(said.contains("lladdr"), "ARP was answered: {said}");
    for (address, path, expected) in [
        (SERVER, "/", "ready\n200"),
        (SERVER, "/readyz", "ready\n200"),
        (SERVER, "/livez", "alive\n200"),
        ("[fd00:11::102]", "/", "ready\n200"),
    ] {
        let url = format!("http://{address}{path}");
        let (code, said) = far(&namespaces, &["curl", "-gsS", "-m", "5", "-w", "%{http_code}", &url]);
        assert_eq!((code, said.as_str()), (Some(0), expected), "{url}");
    }
    let (_, said) = far(&namespaces, &["curl", "-sS", "-m", "5", &format!("http://{SERVER}/healthz")]);
    let body: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&body["state"], &body["reasons"]), (&"ready".into(), &serde_json::json!([])), "{said}");

    far_end(&namespaces, TEST, "checks");

    // The same answer for the machine itself, as a container's health check asks.
    let health = || {
        let mut ask = Command::new("ip");
        ask.args(["netns", "exec", &namespaces.near, env!("CARGO_BIN_EXE_sluicegate"), "health"]);
        let output = ask.output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = health();
    assert!(code == Some(0) && said.contains("\"state\":\"ready\""), "{said}");

    // Leaving: refused within two seconds, served until the deadline, gone by itself.
    program.signal("TERM");
    let began = Instant::now();
    assert_eq!(program.line("health")["to"], "draining");
    assert!(began.elapsed() < Duration::from_secs(2));
    let (code, said) = far(&namespaces, &["curl", "-sS", "-m", "5", &format!("http://{SERVER}/")]);
    assert_eq!(code, Some(7), "refused: {said}"); // CURLE_COULDNT_CONNECT
    let (code, said) = health();
    assert!(code == Some(1) && said.contains("\"cause\":\"draining\""), "{said}");
    let (code, said) = far(&namespaces, &["ping", "-c", "1", "-W", "5", SERVER]);
    assert_eq!(code, Some(0), "it is still there: {said}");
    assert_eq!(program.line("drain")["drain"], "going");
    let stopped = program.line("stopped");
    assert_eq!(program.wait().code(), Some(0), "{stopped}");
    assert_eq!((&stopped["balances"], &stopped["buffers_out"]), (&true.into(), &0.into()), "{stopped}");
    drop(namespaces);
    assert_nothing_left(&own);
}

/// In the far namespace: a thousand checks in a row while the tunnel is busy.
fn checks_under_traffic() {
    let frame = cases()
        .into_iter()
        .find(|case| case.verdict == "home" && case.settings.is_empty())
        .expect("one")
        .frame;
    let datagram = &frame[42..]; // behind the outer UDP header: the kernel writes its own
    let (to, from) = (
        UdpSocket::bind("10.254.11.60:60123").expect("a port"),
        UdpSocket::bind("10.254.11.60:6081").expect("a port"),
    );
    from.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
    let (stop, sent, back) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // What the interface carries without loss: the far end must count it all.
                if sent.load(Ordering::Relaxed) < back.load(Ordering::Relaxed) + 64 {
                    to.send_to(datagram, (SERVER, 6081)).expect("a datagram");
                    sent.fetch_add(1, Ordering::Relaxed);
                } else {
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            let mut bytes = [0; 2048];
            let mut last = Instant::now();
            while last.elapsed() < Duration::from_secs(2) {
                match from.recv_from(&mut bytes) {
                    Ok((len, _)) => {
                        assert_eq!(&bytes[..len], datagram, "home as it came");
                        back.fetch_add(1, Ordering::Relaxed);
                        last = Instant::now();
                    }
                    Err(_) if stop.load(Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
        });
        for n in 0..1000 {
            let address = (SERVER, 80);
            let address =
                std::net::ToSocketAddrs::to_socket_addrs(&address).expect("an address").next().expect("one");
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
                .unwrap_or_else(|e| panic!("check {n}: {e}"));
            if n % 2 == 0 {
                continue; // a check that only connects
            }
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("check {n}: {e}"));
            assert!(
                answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ready\n"),
                "check {n}: {answer}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (sent, back) = (sent.into_inner(), back.into_inner());
    assert!(sent > 1000 && sent == back, "{back} of {sent} tunnel packets came home");
    common::say(&format!("1000 checks, {back} tunnel packets meanwhile"));
}

/// dnsmasq gives the port its address.
#[test]
fn an_address_comes_by_dhcp() {
    const TEST: &str = "an_address_comes_by_dhcp";
    if Command::new("dnsmasq").arg("--version").output().is_err() {
        return skipped(TEST, "it needs dnsmasq");
    }
    let Some(namespaces) = namespaces(TEST) else { return };
    let (folder, own) = (tempfile::tempdir().expect("a folder"), prefix("live-dhcp"));
    let lease = folder.path().join("leases");
    let mut server = Command::new("ip")
        .args([
            "netns",
            "exec",
            &namespaces.far,
            "dnsmasq",
            "--keep-in-foreground",
            "--port=0",
            "--conf-file=/dev/null",
        ])
        .args(["--interface=far", "--bind-interfaces", "--user=root", "--no-ping", "--pid-file="])
        .args(["--dhcp-range=10.254.11.200,10.254.11.200,255.255.255.0,2m", "--dhcp-option=3,10.254.11.60"])
        .arg(format!("--dhcp-leasefile={}", lease.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dnsmasq starts");
    std::thread::sleep(Duration::from_millis(300));
    let mut program = start(&namespaces, folder.path(), &own, "address = \"dhcp\"", "");
    let said = program.line("port");
    assert_eq!(said["text"], "port 0: address 10.254.11.200/24, gateway 10.254.11.60, by DHCP", "{said}");
    let (code, answer) = far(&namespaces, &["curl", "-sS", "-m", "5", "http://10.254.11.200/"]);
    assert_eq!((code, answer.as_str()), (Some(0), "ready\n"));
    let (code, answer) = far(&namespaces, &["ping", "-c", "3", "-i", "0.1", "10.254.11.200"]);
    assert_eq!(code, Some(0), "{answer}");
    let _ = server.kill();
    let _ = server.wait();
    program.signal("INT");
    assert_eq!(program.line("stopped")["balances"], true);
    assert_eq!(program.wait().code(), Some(0));
    drop(namespaces);
    assert_nothing_left(&own);
}

/// With `tap` the kernel of the near namespace answers: ping, and TCP to a socket of its own.
#[test]
fn the_kernel_answers_by_a_tap_interface() {
    const TEST: &str = "the_kernel_answers_by_a_tap_interface";
    if !std::path::Path::new("/dev/net/tun").exists() {
        return skipped(TEST, "it needs /dev/net/tun");
    }
    let Some(namespaces) = namespaces(TEST) else { return };
    let (folder, own) = (tempfile::tempdir().expect("a folder"), prefix("live-tap"));
    let extra = "[management]\nhost = \"tap\"\nlisten = \"0.0.0.0:8080\"\ndrain_on_sigterm = true\ndrain_at_least = \"30s\"\n\
                 [management.health]\nlisten = \"0.0.0.0:80\"\n";
    let mut program = start(&namespaces, folder.path(), &own, "", extra);
    let (near, tap) = (namespaces.near.as_str(), "sluice0");
    let shown = Command::new("ip").args(["-n", near, "link", "show"]).output().expect("ip");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = |name: &str| {
        let lines: Vec<_> = shown.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.contains(&format!(": {name}")))
            .unwrap_or_else(|| panic!("{name}: {shown}"));
        (lines[at].to_owned(), lines[at + 1].split_whitespace().nth(1).expect("an address").to_owned())
    };
    assert_eq!(line(tap).1, line("near").1, "the MAC address is the port's");
    assert!(line(tap).0.contains("mtu 1500"), "{shown}");
    ip(&["-n", near, "address", "add", &format!("{SERVER}/24"), "dev", tap]).expect("an address");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, said) = far(&namespaces, &["ping", "-c", "2", "-i", "0.2", "-W", "1", SERVER]);
        if code == Some(0) {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    let (code, answer) = far(&namespaces, &["curl", "-sS", "-m", "5", &format!("http://{SERVER}:8080/")]);
    assert_eq!((code, answer.as_str()), (Some(0), "ready\n"));
    let (code, answer) = far(&namespaces, &["curl", "-sS", "-m", "5", &format!("http://{SERVER}/")]);
    assert_eq!((code, answer.as_str()), (Some(0), "ready\n"), "the socket for checks");
    let (_, answer) = far(&namespaces, &["curl", "-sS", "-m", "5", &format!("http://{SERVER}/metrics")]);
    assert!(answer.starts_with("paths are"), "{answer}");
    // While it drains a check that only connects is refused; figures are there.
    program.signal("TERM");
    let connect =
        ["curl", "-s", "-o", "/dev/null", "-m", "5", &format!("telnet://{SERVER}:80"), "--max-time", "1"];
    let deadline = Instant::now() + PATIENCE;
    // 7: the connection was refused; 28: it was made, and nothing more was said.
    while far(&namespaces, &connect).0 != Some(7) {
        assert!(Instant::now() < deadline, "checks still connect");
    }
    let (code, answer) = far(&namespaces, &["curl", "-sS", "-m", "5", &format!("http://{SERVER}:8080/")]);
    assert_eq!(code, Some(0));
    assert!(answer.starts_with("draining"), "{answer}");
    program.signal("TERM");
    assert_eq!(program.line("stopped")["balances"], true);
    assert_eq!(program.wait().code(), Some(0));
    drop(namespaces);
    assert_nothing_left(&own);
}
