//! Protocols of lines where the server speaks first: FTP (RFC 959), SMTP (RFC 5321), POP3 (RFC 1939), IMAP (RFC 9051), NNTP (RFC 3977), IRC (RFC 2812), XMPP (RFC 6120).
//!
//! A server's "220 " is FTP's or SMTP's, and "+OK" POP3's or an answer of Redis: unless the greeting says what it is, the client's first command does.

use super::fit::{Fit, HEAD, Is, Like, No, NotYet, begins, begins_in_any_case, best, command, contains, is};

/// A greeting with this code. `Is` if it names the protocol, `No` if it names another.
fn greeting(bytes: &[u8], code: &[u8; 3], names: &[&[u8]], others: &[&[u8]]) -> Fit {
    match begins(bytes, code) {
        Is => {}
        fit => return fit,
    }
    match bytes.get(3) {
        None => NotYet,
        Some(b' ' | b'-') => {
            // The first name on the line: a host may be called ftp.
            let text = bytes.get(4..).unwrap_or(&[]);
            let has = |names: &[&[u8]]| names.iter().any(|name| has_word(text, name));
            let is_whole = bytes.len() >= HEAD || text.contains(&b'\n');
            match (has(names), has(others)) {
                (true, _) => Is,
                (_, true) => No,
                (false, false) => {
                    if is_whole {
                        Like
                    } else {
                        NotYet
                    }
                }
            }
        }
        Some(_) => No,
    }
}

/// The name stands by itself, not as part of a host's.
fn has_word(text: &[u8], word: &[u8]) -> bool {
    let starts = (0..text.len())
        .filter(|at| text.get(*at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word)));
    let is_inside = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || b".-".contains(b));
    let mut starts = starts.filter(|at| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        // Known only when the next byte is here.
        let behind = text.get(at + word.len());
        !is_inside(before) && behind.is_some() && !is_inside(behind)
    });
    starts.next().is_some()
}

/// SMTP, who answers. A refusal or an answer in the middle of a connection is as good as a greeting, with less to say.
pub fn smtp_server(bytes: &[u8]) -> Fit {
    let greets = greeting(bytes, b"220", &[b"ESMTP", b"SMTP", b"LMTP", b"ESMTPS"], &[b"FTP"]);
    best([greets, begins(bytes, b"554 ").at_most_like(), begins(bytes, b"421 ").at_most_like()])
}

/// SMTP, who asks.
pub fn smtp_client(bytes: &[u8]) -> Fit {
    let own = best([begins_in_any_case(bytes, b"MAIL FROM:"), begins_in_any_case(bytes, b"RCPT TO:")]);
    let greets = command(bytes, &["EHLO", "LHLO", "HELO"]);
    let others = command(bytes, &["QUIT", "NOOP", "RSET", "STARTTLS", "AUTH", "VRFY", "HELP"]);
    best([own, greets, others.at_most_like()])
}

/// FTP, who answers.
pub fn ftp_server(bytes: &[u8]) -> Fit {
    let names: [&[u8]; 6] = [b"FTP", b"ProFTPD", b"vsFTPd", b"Pure-FTPd", b"FileZilla", b"FTPd"];
    let greets = greeting(bytes, b"220", &names, &[b"ESMTP", b"SMTP", b"LMTP"]);
    best([greets, begins(bytes, b"331 ").at_most_like(), begins(bytes, b"530 ").at_most_like()])
}

/// FTP, who asks.
pub fn ftp_client(bytes: &[u8]) -> Fit {
    let own = ["PASV", "EPSV", "SYST", "FEAT", "PORT", "EPRT", "RETR", "STOR", "CWD", "OPTS", "CLNT", "PBSZ"];
    let shared = ["USER", "AUTH", "QUIT", "NOOP", "HELP", "TYPE", "LIST", "HOST", "PWD", "ACCT", "PROT"];
    best([command(bytes, &own).at_most_like(), command(bytes, &shared).at_most_like()])
}

/// POP3, who answers.
pub fn pop3_server(bytes: &[u8]) -> Fit {
    match (begins(bytes, b"+OK"), bytes.get(3)) {
        (Is, Some(b' ' | b'\r' | b'\n')) => {
            if contains(bytes, b"POP") {
                Is
            } else {
                Like
            }
        }
        (Is, None) => NotYet,
        (Is, Some(_)) => No,
        (fit, _) => fit,
    }
}

/// POP3, who asks.
pub fn pop3_client(bytes: &[u8]) -> Fit {
    let own = command(bytes, &["APOP", "STLS", "CAPA", "UIDL", "RETR"]);
    best([own, command(bytes, &["USER", "AUTH", "QUIT", "PASS", "LIST", "STAT", "NOOP"])]).at_most_like()
}

/// IMAP, who answers.
pub fn imap_server(bytes: &[u8]) -> Fit {
    let words = [&b"* OK "[..], b"* OK[", b"* PREAUTH ", b"* CAPABILITY "];
    best([best(words.map(|word| begins(bytes, word))), begins(bytes, b"* BYE ").at_most_like()])
}

/// IMAP, who asks: a tag and a command.
pub fn imap_client(bytes: &[u8]) -> Fit {
    const LONGEST_TAG: usize = 12;
    let end = bytes.iter().take(LONGEST_TAG + 1).position(|b| !b.is_ascii_alphanumeric() && *b != b'.');
    let Some(end) = end else { return if bytes.len() > LONGEST_TAG { No } else { NotYet } };
    match bytes.get(end..) {
        Some([b' ', rest @ ..]) if end > 0 => {
            let own = command(rest, &["CAPABILITY", "AUTHENTICATE", "STARTTLS", "NAMESPACE", "LOGOUT"]);
            // A tag in front of words that other protocols have too.
            best([own, command(rest, &["LOGIN", "NOOP", "ID", "SELECT", "LIST", "EXAMINE"]).at_most_like()])
        }
        _ => No,
    }
}

/// NNTP, who answers.
pub fn nntp_server(bytes: &[u8]) -> Fit {
    let names: [&[u8]; 5] = [b"NNTP", b"NNRP", b"InterNetNews", b"INN", b"news"];
    best([greeting(bytes, b"200", &names, &[]), greeting(bytes, b"201", &names, &[])])
}

/// NNTP, who asks.
pub fn nntp_client(bytes: &[u8]) -> Fit {
    let own =
        ["MODE READER", "MODE STREAM", "AUTHINFO", "CAPABILITIES", "XOVER", "IHAVE", "NEWNEWS", "NEWGROUPS"];
    let shared = [
        "GROUP", "LIST", "ARTICLE", "HEAD", "BODY", "STAT", "OVER", "DATE", "HELP", "QUIT", "POST",
        "STARTTLS", "XHDR",
    ];
    best([command(bytes, &own), command(bytes, &shared).at_most_like()])
}

/// IRC, who asks.
pub fn irc_client(bytes: &[u8]) -> Fit {
    best([begins(bytes, b"CAP LS"), command(bytes, &["NICK", "PASS", "USER"]).at_most_like()])
}

/// IRC, who answers.
pub fn irc_server(bytes: &[u8]) -> Fit {
    let own = best([begins(bytes, b"NOTICE AUTH "), begins(bytes, b"NOTICE * "), begins(bytes, b"ERROR :")]);
    if bytes.first() != Some(&b':') {
        return own.at_most_like();
    }
    // `:host 001 nick`, `:host NOTICE`.
    let Some(blank) = bytes.iter().position(|b| *b == b' ') else { return NotYet };
    let rest = bytes.get(blank + 1..).unwrap_or(&[]);
    best([begins(rest, b"NOTICE "), begins(rest, b"001 "), begins(rest, b"CAP ")]).at_most_like()
}

/// XMPP, either side: a stream, with or without the declaration of XML in front.
pub fn jabber(bytes: &[u8]) -> Fit {
    if begins(bytes, b"<stream:stream") != No {
        return begins(bytes, b"<stream:stream");
    }
    match begins(bytes, b"<?xml version=") {
        Is if contains(bytes, b"<stream:") => Is,
        Is => Like,
        fit => fit,
    }
}

/// Rsync's daemon, either side.
pub fn rsync(bytes: &[u8]) -> Fit {
    begins(bytes, b"@RSYNCD: ")
}

/// Git's daemon, who asks: a length in four digits, and a service.
pub fn git_client(bytes: &[u8]) -> Fit {
    let digits = bytes.iter().take(4).all(u8::is_ascii_hexdigit);
    match bytes.get(4..) {
        Some(rest) if digits => best([begins(rest, b"git-upload-pack "), begins(rest, b"git-receive-pack ")]),
        None if digits => NotYet,
        _ => No,
    }
}

/// And who answers: lengths of four digits all the same.
pub fn git_server(bytes: &[u8]) -> Fit {
    match bytes.get(..4) {
        Some(digits) => is(digits.iter().all(u8::is_ascii_hexdigit)).at_most_like(),
        None if bytes.iter().all(u8::is_ascii_hexdigit) => NotYet,
        None => No,
    }
}
