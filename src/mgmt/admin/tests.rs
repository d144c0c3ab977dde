use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::client::{Client, Error as Failed};
use super::*;
use crate::config::{Options, Overrides, Plan, load_text};
use crate::mgmt::http::Method;
use crate::mgmt::server::{CONNECTIONS, PATIENCE};

/// Says what it was asked.
struct Echo;

impl Api for Echo {
    fn answer(&self, request: &Request<'_>) -> Reply {
        let (asked, body) = (request.asked, String::from_utf8_lossy(request.body));
        match asked.path {
            "/v1/no" => Refusal::new("busy", "not now").reply(),
            "/v1/other" => Reply::text(Outcome::Fit, JSON, "{\"version\":7}"),
            "/v1/large" => page(Outcome::Fit, true, json!({ "large": "x".repeat(3 << 20) })),
            "/v1/on" => Reply::Stream(
                "text/plain",
                Box::new(|pipe| {
                    let line = [b'.'; 1024];
                    while pipe.send(&line) && pipe.wait(Duration::from_millis(1)) {}
                }),
            ),
            path => page(
                Outcome::Fit,
                true,
                json!({
                    "path": path, "query": asked.query, "body": body, "post": asked.method == Method::Post,
                    "all": request.rights == Rights::Change,
                }),
            ),
        }
    }
}

fn plan(folder: &Path, more: &str) -> Plan {
    let text = format!(
        "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nallowed_sources = [\"10.0.0.0/8\"]\n[management]\n{more}"
    );
    load_text("t.toml", &text, folder, &Overrides::default(), &Options::default()).unwrap()
}

fn open(folder: &Path) -> Admin {
    let plan = plan(folder, "socket = \"admin.sock\"");
    Admin::open(&plan.management, Arc::new(Echo), &[]).unwrap().unwrap()
}

/// What is answered to these bytes.
fn raw(admin: &Admin, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(admin.path()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(bytes); // it may be refused before it is through
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

#[test]
fn a_question_gets_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut admin = open(folder.path());
    assert_eq!(fs::metadata(admin.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let client = Client::new(admin.path());
    let said = client.get("a", &[("filter", "port=1-2 a&b"), ("n", "1")]).unwrap();
    let expected = json!({
        "version": 1, "ok": true, "path": "/v1/a", "query": "filter=port%3D1-2+a%26b&n=1", "body": "", "post": false,
        "all": true,
    });
    assert_eq!(said, expected);
    let body = "x".repeat(4096);
    assert_eq!(client.post("b", &[], &body).unwrap()["body"], json!(body));
    assert_eq!(client.get("large", &[]).unwrap()["large"].as_str().map(str::len), Some(3 << 20));
    match client.get("no", &[]) {
        Err(Failed::Refused { error, text, .. }) => assert_eq!((&*error, &*text), ("busy", "not now")),
        other => panic!("{other:?}"),
    }
    let other = client.get("other", &[]).unwrap_err().to_string();
    assert!(other.contains("it speaks version 7, and this is 1"), "{other}");
    let path = admin.path().to_owned();
    admin.close();
    assert!(!path.exists());
    assert!(client.get("a", &[]).unwrap_err().to_string().contains("there is no such socket"));
    drop(UnixListener::bind(&path).unwrap());
    assert!(client.get("a", &[]).unwrap_err().to_string().contains("nobody listens"));
}

#[test]
fn only_its_own_socket_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path());
    fs::remove_file(first.path()).unwrap();
    let second = open(folder.path());
    first.close();
    assert_eq!(Client::new(second.path()).get("a", &[]).unwrap()["path"], "/v1/a");
}

/// curl is another client, and the manual names it.
#[test]
fn curl_is_a_client() {
    let folder = tempfile::tempdir().unwrap();
    let admin = open(folder.path());
    let curl = |more: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "--max-time", "20", "--unix-socket"]).arg(admin.path()).args(more);
        let said = command.output().unwrap().stdout;
        serde_json::from_slice::<Value>(&said)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&said)))
    };
    assert_eq!(curl(&["http://localhost/v1/x?y=z"])["query"], "y=z");
    let said = curl(&["-d", "{\"version\":1}", "http://localhost/v1/command"]);
    assert_eq!((&said["body"], &said["post"]), (&json!("{\"version\":1}"), &json!(true)));
}

/// What is no request gets an answer that says so, whatever it is, and nothing of it reaches the API.
#[test]
fn what_is_too_long_or_no_request_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let admin = open(folder.path());
    let long = format!("GET /v1/{} HTTP/1.1\r\n\r\n", "a".repeat(3000));
    let headers = format!("GET /v1/a HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(40));
    for (bytes, code) in [
        ("nonsense\r\n\r\n", "400"),
        ("{\"version\":1,\"command\":\"reload\"}\n", "400"),
        (&long, "431"),
        (&headers, "431"),
        ("DELETE /v1/a HTTP/1.1\r\n\r\n", "405"),
        ("POST /v1/a HTTP/1.1\r\nContent-Length: 4097\r\n\r\n", "413"),
        ("POST /v1/a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "413"),
        ("POST /v1/a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"),
        ("POST /v1/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        ("POST /v1/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"),
        ("POST /v1/a HTTP/1.1\r\n\r\n", "200"),
        ("GET /v1/a HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "200"),
        ("HEAD /v1/a HTTP/1.1\r\n\r\n", "200"),
    ] {
        let said = raw(&admin, bytes.as_bytes());
        assert!(said.starts_with(&format!("HTTP/1.1 {code} ")), "{bytes:.60}: {said}");
    }
}

/// Whoever does not get on is cut after three seconds, and one who wants to ask meanwhile gets his place.
#[test]
fn slow_clients_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let admin = open(folder.path());
    let begun = Instant::now();
    let mut slow: Vec<UnixStream> =
        (0..CONNECTIONS).map(|_| UnixStream::connect(admin.path()).unwrap()).collect();
    slow.iter_mut()
        .for_each(|stream| stream.write_all(b"POST /v1/a HTTP/1.1\r\nContent-Length: 9\r\n\r\nx").unwrap());
    std::thread::sleep(Duration::from_millis(200)); // so that they are the first
    assert_eq!(Client::new(admin.path()).get("a", &[]).unwrap()["ok"], true);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    for stream in &mut slow {
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.is_empty(), "{said}");
    }
    assert!(begun.elapsed() < 2 * PATIENCE);
}

/// What goes on ends when its reader goes, or reads nothing for too long; others are answered meanwhile.
#[test]
fn a_stream_is_given_up_with_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let mut admin = open(folder.path());
    let client = Client::new(admin.path());
    let mut bytes = [0; 3000];
    let mut stream = client.stream("on", &[]).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == b'.'));
    drop(stream);
    let lazy = client.stream("on", &[]).unwrap();
    assert_eq!(client.get("a", &[]).unwrap()["ok"], true);
    let begun = Instant::now();
    admin.close();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(lazy);
}

#[test]
fn only_what_is_left_over_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let mut management = plan(folder.path(), "socket = \"admin.sock\"").management;
    let open = |management: &ManagementPlan| Admin::open(management, Arc::new(Echo), &[]);
    fs::write(&path, "a file").unwrap();
    assert!(open(&management).unwrap_err().unwrap().to_string().contains("a file of that name"));
    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap()); // nobody listens any more
    let first = open(&management).unwrap();
    assert!(open(&management).unwrap_err().unwrap().to_string().contains("another instance"));
    management.socket = ControlSocket::Usual(path);
    let note = open(&management).unwrap_err().unwrap_err();
    assert!(note.contains("another instance"), "{note}");
    drop(first);
    management.socket = ControlSocket::Off;
    assert!(open(&management).unwrap().is_none());
}

/// Others are kept out by the mode of the file, and, where that lets them in, by who they are. Needs root, to be somebody else.
#[test]
fn others_are_kept_out() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_other = |path: &Path, ids: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(ids).args(["curl", "-sS", "--max-time", "20", "--unix-socket"]).arg(path);
        let output = command.arg("http://localhost/v1/a").output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let admin = open(folder.path());
    let said = as_other(admin.path(), &nobody);
    assert!(said.contains("curl:") && !said.contains("\"ok\":true"), "{said}");
    fs::set_permissions(admin.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let said = as_other(admin.path(), &nobody);
    assert!(said.contains("\"error\":\"not-allowed\"") && said.contains("only root"), "{said}");
    drop(admin);

    let plan = plan(folder.path(), "socket = \"admin.sock\"\ngroup = \"4242\"");
    let admin = Admin::open(&plan.management, Arc::new(Echo), &[]).unwrap().unwrap();
    assert_eq!(fs::metadata(admin.path()).unwrap().permissions().mode() & 0o777, 0o660);
    for ids in [
        ["--reuid=65534", "--regid=4242", "--clear-groups"],
        ["--reuid=65534", "--regid=65534", "--groups=7,4242"],
    ] {
        let said = as_other(admin.path(), &ids);
        assert!(said.contains("\"ok\":true"), "{said}");
    }
    fs::set_permissions(admin.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let said = as_other(admin.path(), &["--reuid=65534", "--regid=65534", "--groups=7,424"]);
    assert!(said.contains("\"error\":\"not-allowed\""), "{said}");
}

#[test]
fn groups_are_read() {
    let status = "Name:\tx\nGid:\t0\t0\t0\t0\nGroups:\t4 24 4242 \nNStgid:\t1\n";
    assert_eq!(groups(status).collect::<Vec<_>>(), [4, 24, 4242]);
    assert_eq!(groups("Groups:\t\n").count() + groups("").count(), 0);
}
