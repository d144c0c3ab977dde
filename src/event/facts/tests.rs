use serde_json::{Value, json};

use super::*;

fn text(text: &str) -> Option<Text> {
    Some(text.into())
}

fn value(facts: &impl Serialize) -> Value {
    serde_json::to_value(facts).unwrap()
}

/// The keys of the `tls` example in Suricata's manual ("Event type: TLS") that speak of the handshake, and its JA3 and JA4 forms.
#[test]
fn tls_is_as_suricata_writes_it() {
    let print = |hash: &str, string: &str| Some(Fingerprint { hash: hash.into(), string: string.into() });
    let tls = Tls {
        sni: text("www.example.com"),
        version: text("TLS 1.2"),
        ja3: print("e7d705a3286e19ea42f587b344ee6865", "771,49195-49199,0-10,29-23,0"),
        ja3s: print("391231ba5675e42807b9e1f457b2614e", "771,49200,65281"),
        ja4: text("t13d1516h2_8daaf6152771_e5627efa2ab1"),
        client_alpns: ["h2", "http/1.1"].into_iter().map(Text::from).collect(),
        server_alpns: ["h2"].into_iter().map(Text::from).collect(),
        ..Tls::default()
    };
    let expected = json!({
        "sni": "www.example.com", "version": "TLS 1.2",
        "ja3": { "hash": "e7d705a3286e19ea42f587b344ee6865", "string": "771,49195-49199,0-10,29-23,0" },
        "ja3s": { "hash": "391231ba5675e42807b9e1f457b2614e", "string": "771,49200,65281" },
        "ja4": "t13d1516h2_8daaf6152771_e5627efa2ab1",
        "client_alpns": ["h2", "http/1.1"], "server_alpns": ["h2"],
    });
    assert_eq!(value(&tls), expected);
    assert_eq!(value(&Tls::default()), json!({}), "what is not known is not there");
    let ours = Tls { ech: true, cipher: text("1301"), client_version: text("TLS 1.3"), ..Tls::default() };
    assert_eq!(value(&ours), json!({ "ech": true, "cipher": "1301", "client_version": "TLS 1.3" }));
}

/// "Event type: HTTP".
#[test]
fn http_is_as_suricata_writes_it() {
    let http = Http {
        hostname: text("direkte.vg.no"),
        http_port: Some(8080),
        url: text("/"),
        http_user_agent: text("<User-Agent>"),
        http_content_type: text("application/json"),
        http_refer: text("http://www.vg.no/"),
        http_method: text("GET"),
        protocol: text("HTTP/1.1"),
        status: Some(200),
        length: 310,
        redirect: None,
    };
    let expected = json!({
        "hostname": "direkte.vg.no", "http_port": 8080, "url": "/", "http_user_agent": "<User-Agent>",
        "http_content_type": "application/json", "http_refer": "http://www.vg.no/", "http_method": "GET",
        "protocol": "HTTP/1.1", "status": 200, "length": 310,
    });
    assert_eq!(value(&http), expected);
}

/// "Event type: DNS": the query of its example, and an answer in detailed and grouped form.
#[test]
fn dns_is_as_suricata_writes_it() {
    let query = Dns {
        kind: "query",
        id: 16000,
        rrname: text("twitter.com"),
        rrtype: text("A"),
        tx_id: Some(0),
        ..Dns::default()
    };
    let expected = json!({
        "type": "query", "id": 16000, "opcode": 0, "rrname": "twitter.com", "rrtype": "A", "tx_id": 0,
    });
    assert_eq!(value(&query), expected);
    let record = |rdata: &str| DnsRecord {
        rrname: "twitter.com".into(),
        rrtype: "A".into(),
        ttl: 8,
        rdata: text(rdata),
        ..DnsRecord::default()
    };
    let addresses = ["199.16.156.6", "199.16.156.102"];
    let answer = Dns {
        version: Some(2),
        kind: "answer",
        id: 16000,
        flags: text("8180"),
        qr: true,
        rd: true,
        ra: true,
        rrname: text("twitter.com"),
        rrtype: text("A"),
        rcode: text("NOERROR"),
        answers: addresses.map(record).into_iter().collect(),
        grouped: [("A".into(), addresses.into_iter().map(|a| DnsValue::Text(a.into())).collect())].into(),
        ..Dns::default()
    };
    let expected = json!({
        "version": 2, "type": "answer", "id": 16000, "flags": "8180", "qr": true, "rd": true, "ra": true, "opcode": 0,
        "rrname": "twitter.com", "rrtype": "A", "rcode": "NOERROR",
        "answers": [
            { "rrname": "twitter.com", "rrtype": "A", "ttl": 8, "rdata": "199.16.156.6" },
            { "rrname": "twitter.com", "rrtype": "A", "ttl": 8, "rdata": "199.16.156.102" },
        ],
        "grouped": { "A": ["199.16.156.6", "199.16.156.102"] },
    });
    assert_eq!(value(&answer), expected);
}

/// "Event type: SSH".
#[test]
fn ssh_is_as_suricata_writes_it() {
    let end = |software: &str| {
        Some(SshEnd { proto_version: "2.0".into(), software_version: software.into(), hassh: None })
    };
    let ssh = Ssh { client: end("OpenSSH_6.7"), server: end("OpenSSH_6.7") };
    let one = json!({ "proto_version": "2.0", "software_version": "OpenSSH_6.7" });
    assert_eq!(value(&ssh), json!({ "client": one, "server": one }));
}

#[test]
fn texts_and_lists_are_bounded() {
    let long = "a".repeat(LONGEST_TEXT - 1) + "\u{e9}\u{e9}";
    let cut = Text::new(long.as_bytes());
    assert_eq!(cut.as_str(), "a".repeat(LONGEST_TEXT - 1), "cut at a character");
    // Every byte that is no UTF-8 becomes three.
    let worst = Text::new(&[0xff; 10 * LONGEST_TEXT]);
    assert_eq!(worst.as_str().len(), 3 * LONGEST_TEXT);
    assert_eq!(Text::new(b"a\xffb").as_str(), "a\u{fffd}b");
    let mut list: List<u8> = (0..200u8).collect();
    list.push(7);
    assert_eq!(serde_json::to_value(&list).unwrap().as_array().unwrap().len(), LONGEST_LIST);
}
