//! DNS messages, made up.

/// What is asked for, and under which number.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub id: u16,
    pub name: &'a str,
    pub kind: u16,
}

/// An A record is asked for.
pub fn asked(id: u16, name: &str) -> Asked<'_> {
    Asked { id, name, kind: 1 }
}

/// A name as it travels.
pub fn name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels.flat_map(|l| [&[l.len() as u8][..], l.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}

fn message(asked: Asked<'_>, flags: u16, answers: u16) -> Vec<u8> {
    let head = [asked.id, flags, 1, answers, 0, 0];
    let mut wire: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
    wire.extend(name(asked.name));
    wire.extend(asked.kind.to_be_bytes());
    wire.extend([0, 1]);
    wire
}

/// A query.
pub fn query(asked: Asked<'_>) -> Vec<u8> {
    message(asked, 0x0100, 0)
}

/// An answer with these addresses, under a name that points to the question's.
pub fn answer(asked: Asked<'_>, addresses: &[[u8; 4]]) -> Vec<u8> {
    let mut wire = message(asked, 0x8180, addresses.len() as u16);
    for address in addresses {
        wire.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        wire.extend(address);
    }
    wire
}

/// The same as they go over TCP.
pub fn over_tcp(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat()).collect()
}
