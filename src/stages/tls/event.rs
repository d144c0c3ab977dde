//! What was read of a handshake as the body of an event: the keys and words of Suricata 7, which knows no DTLS.

use super::facts::{Client, Facts};
use crate::event::facts::{self, Text};

/// The body. Allocates: for those who know that it is wanted.
pub fn of(facts: &Facts<'_>) -> facts::Tls {
    let (client, server) = (facts.client, facts.server);
    let version = server.map(|server| server.version).or(client.map(|client| client.highest));
    let sni = client.and_then(|client| client.sni.as_deref()).filter(|name| !name.is_empty());
    facts::Tls {
        sni: sni.map(Text::new),
        version: version.map(word),
        from_proto: None,
        ja3: client.and_then(Client::ja3).map(fingerprint),
        ja3s: server.and_then(|server| server.ja3s.as_ref()).map(fingerprint),
        ja4: client.and_then(Client::ja4).map(Text::from),
        client_alpns: client
            .into_iter()
            .flat_map(|client| &client.alpn)
            .map(|name| Text::new(name))
            .collect(),
        server_alpns: server.and_then(|server| server.alpn.as_deref()).into_iter().map(Text::new).collect(),
        cipher: server.map(|server| format!("{:04x}", server.cipher).as_str().into()),
        client_version: client.map(|client| word(client.highest)),
        ech: client.is_some_and(|client| client.ech),
    }
}

fn fingerprint(known: &super::Fingerprint) -> facts::Fingerprint {
    facts::Fingerprint { hash: known.hex().as_str().into(), string: known.text.as_str().into() }
}

/// A version as `app-layer-ssl.c` writes it (`SSLVersionToString`).
fn word(version: u16) -> Text {
    match version {
        0x0002 | 0x0200 => "SSLv2".into(),
        0x0300 => "SSLv3".into(),
        0x0301 => "TLSv1".into(),
        0x7f00..=0x7fff => format!("TLS 1.3 draft-{}", version & 0xff).as_str().into(),
        0xfb00..=0xfbff => format!("TLS 1.3 draft-{}-fb", version & 0xff).as_str().into(),
        other => super::version_name(other).as_str().into(),
    }
}
