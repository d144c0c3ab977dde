//! What looks like DNS where nobody said that it is: on ports that the settings do not list.
//!
//! Nothing in DNS says "this is DNS", so its shape must do: a header of a plain query or answer with one question, in the class of the Internet, for a
//! type that there is and a name of usual characters, and not a byte behind the last record. Random bytes look so once in some 10^15.
//! mDNS, LLMNR and NetBIOS have the same shape, and stay in their network: their ports are left out unless they are listed.

use super::gather::{PREFIX, Step};
use super::message::{HEADER, Header, Message, State};
use super::words;

/// Ports of protocols that look like DNS and are not: NetBIOS, mDNS, LLMNR.
pub const LOOK_ALIKES: [u16; 3] = [137, 5353, 5355];
/// Smallest message with a question.
const LEAST: u16 = HEADER as u16 + 5;
/// Most records of a section.
const MOST_RECORDS: u16 = 512;

/// Could this be the header of DNS?
pub fn is_header(header: &Header) -> bool {
    let [questions, answers, authorities, additional] = header.counts;
    // Z is always 0 (RFC 6895 section 2.1).
    let plain = header.opcode() == 0 && header.flags & 0x0040 == 0 && questions == 1;
    if header.is_answer() {
        return plain && header.rcode() <= 10 && answers.max(authorities).max(additional) <= MOST_RECORDS;
    }
    plain && header.flags & 0x060f == 0 && answers == 0 && authorities == 0 && additional <= 2
}

/// Could a direction of a TCP connection that begins so be DNS? `None`: too early to tell. Where its port is listed the first header decides, else the
/// first message, of which `most` bytes are looked at, however it is cut.
pub fn begins(step: &Step<'_>, listed: bool, most: usize) -> Option<bool> {
    let (len, bytes) = match step {
        Step::Over | Step::Lost => return None,
        Step::Whole(bytes, len) => (*len, *bytes),
        Step::Part(part) => {
            let (len, bytes) = part.split_first_chunk::<PREFIX>()?;
            (u16::from_be_bytes(*len), bytes)
        }
    };
    let is_whole = matches!(step, Step::Whole(..));
    if len < LEAST {
        return Some(false);
    }
    let Some(header) = Header::read(bytes) else { return is_whole.then_some(false) };
    if listed || !is_header(&header) {
        return Some(is_header(&header));
    }
    let message = Message::read(bytes.get(..most).unwrap_or(bytes))?;
    is_whole.then(|| is_dns(&message, len.into()))
}

/// Is a message of so many bytes DNS, as far as it is here?
pub fn is_dns(message: &Message<'_>, len: usize) -> bool {
    let Some(question) = &message.question else { return false };
    let is_cut = message.state == State::Cut && message.len() < len;
    is_header(&message.header)
        && (is_cut || message.state == State::Whole)
        && (is_cut || message.end == len || message.header.is_truncated())
        && question.class == 1
        && words::kind(question.kind).is_some()
        && question.name.is_plain
        && !question.name.as_bytes().is_empty()
        && question.name.as_bytes().iter().all(|byte| byte.is_ascii_graphic())
}
