//! What was read of a message as the body of an event: the keys and words of Suricata 7 (`rust/src/dns/log.rs`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{Message, Name, Question, Record};
use super::words;
use crate::event::facts::{self, DnsRecord, DnsValue, LONGEST_LIST, List, Soa, Srv, Sshfp, Text};

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const NULL: u16 = 10;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const DNAME: u16 = 39;
const SSHFP: u16 = 44;

/// A query: one record for each of its questions. Allocates: for those who know that it is wanted.
pub fn query(message: &Message<'_>, question: Option<&Question>, tx_id: u64) -> facts::Dns {
    facts::Dns {
        kind: "query",
        id: message.header.id,
        opcode: message.header.opcode(),
        rrname: question.map(|question| name(&question.name)),
        rrtype: question.map(|question| kind(question.kind)),
        tx_id: Some(tx_id),
        ..facts::Dns::default()
    }
}

/// An answer, with all that is in it.
pub fn answer(message: &Message<'_>) -> facts::Dns {
    let header = message.header;
    let mut answers = List::default();
    let mut grouped: BTreeMap<Box<str>, List<DnsValue>> = BTreeMap::new();
    // A record has several values at most where it is a text; the lists end where they are full.
    for record in message.answers().take(LONGEST_LIST) {
        for value in values(&record) {
            if let Some(value) = &value {
                let kind = words::kind(record.kind).unwrap_or_default();
                grouped.entry(kind.into()).or_default().push(value.clone());
            }
            answers.push(of(&record, value));
        }
    }
    let authorities = message.authorities().take(LONGEST_LIST);
    let authorities =
        authorities.map(|record| of(&record, values(&record).into_iter().next().flatten())).collect();
    facts::Dns {
        version: Some(2),
        kind: "answer",
        id: header.id,
        flags: Some(format!("{:x}", header.flags).as_str().into()),
        qr: true,
        aa: header.is_authoritative(),
        tc: header.is_truncated(),
        rd: header.wants_recursion(),
        ra: header.has_recursion(),
        opcode: header.opcode(),
        rrname: message.question.as_ref().map(|question| name(&question.name)),
        rrtype: message.question.as_ref().map(|question| kind(question.kind)),
        rcode: Some(words::outcome(header.rcode()).as_str().into()),
        tx_id: None,
        answers,
        grouped,
        authorities,
    }
}

fn name(name: &Name) -> Text {
    Text::new(name.as_bytes())
}

fn kind(number: u16) -> Text {
    words::kind(number).map_or_else(|| number.to_string().as_str().into(), Text::from)
}

fn of(record: &Record<'_>, value: Option<DnsValue>) -> DnsRecord {
    let plain = DnsRecord {
        rrname: name(&record.name()),
        rrtype: kind(record.kind),
        ttl: record.ttl,
        ..DnsRecord::default()
    };
    match value {
        None => plain,
        Some(DnsValue::Text(text)) => DnsRecord { rdata: Some(text), ..plain },
        Some(DnsValue::Soa(soa)) => DnsRecord { soa: Some(soa), ..plain },
        Some(DnsValue::Srv(srv)) => DnsRecord { srv: Some(srv), ..plain },
        Some(DnsValue::Sshfp(sshfp)) => DnsRecord { sshfp: Some(sshfp), ..plain },
    }
}

/// What a record says, in the forms that Suricata knows: one value, or none, or of a text record each of its strings.
fn values(record: &Record<'_>) -> Vec<Option<DnsValue>> {
    if record.kind == TXT {
        let (mut rest, mut strings) = (record.data, Vec::new());
        while let Some((len, more)) = rest.split_first().filter(|_| strings.len() < LONGEST_LIST) {
            let (string, more) = more.split_at_checked(usize::from(*len)).unwrap_or((more, &[]));
            strings.push(Some(DnsValue::Text(Text::new(string))));
            rest = more;
        }
        return strings;
    }
    vec![value(record)]
}

fn value(record: &Record<'_>) -> Option<DnsValue> {
    let data = record.data;
    let named = |at: usize| record.name_in_data(at).map(|(of, _)| DnsValue::Text(name(&of)));
    match record.kind {
        A => {
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?);
            Some(DnsValue::Text(address.to_string().as_str().into()))
        }
        AAAA => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?);
            // All groups in full, as Suricata writes them.
            let mut text = String::with_capacity(39);
            for (n, group) in address.segments().iter().enumerate() {
                let _ = write!(text, "{}{group:04x}", if n == 0 { "" } else { ":" });
            }
            Some(DnsValue::Text(text.as_str().into()))
        }
        NS | CNAME | PTR | DNAME => named(0),
        MX => named(2),
        NULL => Some(DnsValue::Text(Text::new(data))),
        SOA => soa(record).map(DnsValue::Soa),
        SRV => {
            let [p, r, w, e, o, t] = *data.first_chunk::<6>()?;
            let word = |high, low| u16::from_be_bytes([high, low]);
            let (target, _) = record.name_in_data(6)?;
            Some(DnsValue::Srv(Srv {
                priority: word(p, r),
                weight: word(w, e),
                port: word(o, t),
                name: name(&target),
            }))
        }
        SSHFP => {
            let ([algo, kind], print) = data.split_first_chunk::<2>()?;
            let mut text = String::with_capacity(3 * print.len());
            for (n, byte) in print.iter().enumerate() {
                let _ = write!(text, "{}{byte:02x}", if n == 0 { "" } else { ":" });
            }
            Some(DnsValue::Sshfp(Sshfp { fingerprint: text.as_str().into(), algo: *algo, kind: *kind }))
        }
        _ => None,
    }
}

fn soa(record: &Record<'_>) -> Option<Soa> {
    let (mname, at) = record.name_in_data(0)?;
    let (rname, at) = record.name_in_data(at)?;
    let mut words = record.data.get(at..)?.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    let mut next = || words.next();
    Some(Soa {
        mname: name(&mname),
        rname: name(&rname),
        serial: next()?,
        refresh: next()?,
        retry: next()?,
        expire: next()?,
        minimum: next()?,
    })
}
