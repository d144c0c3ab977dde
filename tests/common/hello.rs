//! Hellos of TLS, made up.

/// A ClientHello in one record: versions that it lists, and a name.
pub fn client_hello(legacy: u16, lists: &[u16], name: Option<&str>) -> Vec<u8> {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let names = long(&[&[0][..], &long(name.as_bytes())].concat());
        extensions.extend([&[0, 0][..], &long(&names)].concat());
    }
    if !lists.is_empty() {
        let list: Vec<u8> = lists.iter().flat_map(|version| version.to_be_bytes()).collect();
        extensions.extend([&[0, 43][..], &long(&[&[list.len() as u8][..], &list].concat())].concat());
    }
    let mut body = legacy.to_be_bytes().to_vec();
    body.extend([9; 32]);
    body.extend([0, 0, 4, 0x13, 1, 0xc0, 0x2f, 1, 0]);
    body.extend(long(&extensions));
    record(&message(1, &body))
}

/// A ServerHello in one record.
pub fn server_hello(version: u16) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([8; 32]);
    body.extend([0, 0xc0, 0x2f, 0]);
    record(&message(2, &body))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn record(message: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), message].concat()
}
