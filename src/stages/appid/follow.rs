//! What becomes of a connection whose protocol can change over to TLS: does it, or does its client say in the clear what it has to say?
//!
//! Only what the client says is read: its commands one by one, until it begins a TLS handshake or says what nobody should hear (who he is, what he wants).
//! A command is judged by its first word as soon as that is whole, so before what follows it has come. Of a command 32 bytes are looked at, and so
//! many commands and bytes in all.

use super::data::{GSS_REQUEST, SSL_REQUEST};
use super::fit::{Is, NotYet, begins, ber, command, u16_at, u32_at};
use crate::packet::App;

/// Bytes of a command that are looked at.
const LINE: usize = 32;
/// Commands after which a connection is as good as in the clear.
const MOST_COMMANDS: u8 = 64;
/// Bytes likewise.
const MOST_BYTES: u16 = 8192;

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may still change over.
    Open,
    /// It has: TLS begins.
    Encrypted,
    /// Its client goes on in the clear.
    Plain,
    /// It goes on with an encryption of its own, or nobody can say.
    Over,
}

/// How a protocol's commands are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Lines.
    Lines,
    /// Elements of XML.
    Elements,
    /// Each begins with its length.
    Messages,
    /// A head that ends with an empty line, and then whatever it may be.
    Head,
}

/// A connection on its way.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    app: App,
    line: [u8; LINE],
    len: u8,
    /// The command at hand was judged, or it has no beginning that was seen.
    judged: bool,
    /// Bytes of a message that are still to come.
    skip: u32,
    commands: u8,
    bytes: u16,
}

fn form(app: App) -> Option<Form> {
    match app {
        App::Smtp | App::Imap | App::Pop3 | App::Ftp | App::Nntp | App::Irc => Some(Form::Lines),
        App::Jabber => Some(Form::Elements),
        App::Ldap | App::Pgsql | App::Mysql | App::Rdp => Some(Form::Messages),
        App::Http => Some(Form::Head),
        _ => None,
    }
}

impl Follow {
    /// Follows a connection of this protocol, if it can change over; of HTTP if its client, which has begun so, asks for a tunnel.
    pub fn of(app: App, head: &[u8]) -> Option<Follow> {
        let form = form(app)?;
        if form == Form::Head && begins(head, b"CONNECT ") != Is {
            return None;
        }
        Some(Follow { app, line: [0; LINE], len: 0, judged: false, skip: 0, commands: 0, bytes: 0 })
    }

    /// Bytes of the client that nobody kept: the command at hand is lost.
    pub fn lose(&mut self, bytes: u32) -> Turn {
        let by_length = form(self.app) == Some(Form::Messages);
        match self.skip.checked_sub(bytes) {
            Some(rest) if by_length => self.skip = rest,
            _ if by_length && bytes > 0 => return Turn::Over,
            _ => self.judged |= bytes > 0,
        }
        Turn::Open
    }

    /// More that the client says.
    pub fn take(&mut self, bytes: &[u8]) -> Turn {
        let Some(form) = form(self.app) else { return Turn::Over };
        for byte in bytes {
            self.bytes = self.bytes.saturating_add(1);
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            if !self.judged
                && let Some(place) = self.line.get_mut(usize::from(self.len))
            {
                (*place, self.len) = (*byte, self.len + 1);
            }
            let own = self.line;
            let line = own.get(..usize::from(self.len)).unwrap_or(&[]);
            let (turn, ends) = match form {
                Form::Lines => (self.line_turn(line, *byte), *byte == b'\n'),
                Form::Elements => (self.element_turn(line, *byte), *byte == b'>'),
                Form::Head => self.head_turn(line),
                Form::Messages => match self.message_turn(line) {
                    Some((turn, rest)) => {
                        self.skip = rest;
                        (turn, true)
                    }
                    None => (Turn::Open, false),
                },
            };
            if turn != Turn::Open {
                return turn;
            }
            if ends {
                (self.len, self.judged) = (0, false);
                self.commands += 1;
            }
            if self.commands >= MOST_COMMANDS || self.bytes >= MOST_BYTES {
                return Turn::Plain;
            }
        }
        Turn::Open
    }

    fn line_turn(&self, line: &[u8], last: u8) -> Turn {
        if self.judged {
            return Turn::Open;
        }
        if let Some(turn) = hello(line) {
            return turn;
        }
        // A word ends with a blank or its line; of some commands the second one says what it is.
        let is_word = matches!(last, b' ' | b'\r' | b'\n' | b':');
        if !is_word && usize::from(self.len) < LINE {
            return Turn::Open;
        }
        let says = |words: &[&str]| command(line, words) == Is;
        let plain = match self.app {
            App::Smtp => says(&["AUTH", "MAIL", "RCPT", "DATA", "BDAT", "VRFY", "EXPN", "XCLIENT", "SEND"]),
            App::Pop3 => says(&["USER", "PASS", "APOP", "AUTH", "STAT", "LIST", "RETR", "UIDL"]),
            App::Ftp => says(&[
                "USER", "PASS", "PASV", "EPSV", "PORT", "EPRT", "RETR", "STOR", "LIST", "NLST", "CWD", "PWD",
            ]),
            App::Nntp => says(&[
                "AUTHINFO", "GROUP", "ARTICLE", "HEAD", "BODY", "STAT", "OVER", "XOVER", "LIST", "POST",
                "IHAVE", "NEWNEWS",
            ]),
            App::Irc => says(&["NICK", "USER", "PASS", "JOIN", "PRIVMSG"]),
            App::Imap => {
                let tag = line.iter().take_while(|b| b.is_ascii_graphic()).count();
                let rest = line.get(tag + 1..).unwrap_or(&[]);
                let words = [
                    "LOGIN",
                    "AUTHENTICATE",
                    "SELECT",
                    "EXAMINE",
                    "LIST",
                    "LSUB",
                    "STATUS",
                    "APPEND",
                    "FETCH",
                    "UID",
                    "SEARCH",
                ];
                command(rest, &words) == Is
            }
            _ => false,
        };
        if plain { Turn::Plain } else { Turn::Open }
    }

    /// `<auth`, `<iq`, `<message`, `<presence`, `<db:result`: what comes before is the stream itself, or the wish for TLS.
    fn element_turn(&self, line: &[u8], last: u8) -> Turn {
        if let Some(turn) = hello(line) {
            return turn;
        }
        let start = line
            .iter()
            .position(|b| !b.is_ascii_whitespace())
            .and_then(|start| line.get(start..))
            .unwrap_or(&[]);
        if !matches!(last, b' ' | b'>' | b'/') {
            return Turn::Open;
        }
        let plain = ["<auth", "<iq", "<message", "<presence", "<db:result", "<response"];
        if plain.iter().any(|word| begins(start, word.as_bytes()) == Is) { Turn::Plain } else { Turn::Open }
    }

    /// CONNECT: when its head is over, what is said in the tunnel begins. The last four bytes are looked at.
    fn head_turn(&mut self, line: &[u8]) -> (Turn, bool) {
        if self.commands > 0 {
            return match hello(line) {
                Some(turn) => (turn, false),
                None if line.is_empty() => (Turn::Open, false),
                None => (Turn::Plain, false),
            };
        }
        let ended = line.ends_with(b"\r\n\r\n") || line.ends_with(b"\n\n");
        if !ended && line.len() == LINE {
            // Keeps what an end could begin with.
            let mut last = [0; LINE];
            for (to, from) in last.iter_mut().zip(line.iter().skip(LINE - 3)) {
                *to = *from;
            }
            (self.line, self.len) = (last, 3);
        }
        (Turn::Open, ended)
    }

    /// What a message that begins so says, and how much of it is still to come; none if that cannot be said yet.
    fn message_turn(&self, line: &[u8]) -> Option<(Turn, u32)> {
        match hello(line) {
            Some(Turn::Open) => return None,
            Some(turn) => return Some((turn, 0)),
            None => {}
        }
        let had = line.len() as u32;
        let behind = |len: u32| len.saturating_sub(had);
        match self.app {
            App::Pgsql => {
                let (len, code) = (u32_at(line, 0)?, u32_at(line, 4)?);
                match code {
                    SSL_REQUEST | GSS_REQUEST if len == 8 => Some((Turn::Open, behind(len))),
                    0x0002_0000..=0x0003_ffff => Some((Turn::Plain, 0)),
                    _ => Some((Turn::Over, 0)), // GSSAPI, or a request to cancel
                }
            }
            App::Mysql => {
                // What it can, in the 32 bytes that come before TLS; with more behind them it logs in.
                let (len, flags) = (line.first().copied()?, line.get(5).copied()?);
                let wants = len == 32 && line.get(1..3) == Some(&[0, 0]) && flags & 0x08 != 0;
                Some(if wants { (Turn::Open, behind(36)) } else { (Turn::Plain, 0) })
            }
            App::Rdp => match u16_at(line, 2) {
                Some(len) if self.commands == 0 => Some((Turn::Open, behind(len.into()))),
                Some(_) => Some((Turn::Over, 0)),
                None => None,
            },
            App::Ldap => self.ldap_turn(line),
            _ => Some((Turn::Over, 0)),
        }
    }

    /// A bind with a password, or any other but StartTLS (RFC 4511 section 4.14), is said in the clear; who only asks the root, or nobody knows, may follow.
    fn ldap_turn(&self, line: &[u8]) -> Option<(Turn, u32)> {
        let had = line.len();
        let (len, rest) = match ber(line, 0x30) {
            Ok(found) => found,
            Err(NotYet) => return None,
            Err(_) => return Some((Turn::Over, 0)),
        };
        let whole = len + (had - rest.len());
        let (number, rest) = match ber(rest, 2) {
            Ok(found) => found,
            Err(NotYet) => return None,
            Err(_) => return Some((Turn::Over, 0)),
        };
        let operation = *rest.get(number..)?.first()?;
        let left = whole.saturating_sub(had) as u32;
        match operation {
            // Extended: if it is not StartTLS it is no secret either. Unbind and abandon.
            0x77 | 0x42 | 0x50 => Some((Turn::Open, left)),
            // A search of the root comes before StartTLS.
            0x63 => {
                let body = ber(rest.get(number..)?, operation).ok()?.1;
                match body.get(..2)? {
                    [4, 0] => Some((Turn::Open, left)),
                    _ => Some((Turn::Plain, 0)),
                }
            }
            _ => Some((Turn::Plain, 0)),
        }
    }
}

/// Does it begin as TLS does? `Open`: it may.
fn hello(line: &[u8]) -> Option<Turn> {
    match line {
        [0x16, 3, 0..=4, ..] => Some(Turn::Encrypted),
        [0x16] | [0x16, 3] => Some(Turn::Open),
        _ => None,
    }
}
