//! Databases and caches: MySQL, PostgreSQL, SQL Server (MS-TDS), Redis (RESP), Memcached, MongoDB, Cassandra (CQL), Elasticsearch between nodes; and brokers: MQTT, AMQP.

use super::fit::{
    Fit, HEAD, Is, Like, No, NotYet, begins, best, command, is, like, u16_at, u32_at, u32_le_at,
};

/// Longest document of MongoDB (maxMessageSizeBytes).
const LONGEST_MONGO: u32 = 48_000_000;

/// MySQL, who greets: packet 0 with protocol 10 and a version, or an error in its place.
pub fn mysql_server(bytes: &[u8]) -> Fit {
    match bytes {
        [len, 0 | 1, 0, 0, 10, version @ ..] if *len >= 28 || bytes.get(1) == Some(&1) => {
            // "5.7.", "10.3", "8.0."
            let digits = version.iter().take_while(|b| b.is_ascii_digit()).count();
            match version.get(digits) {
                None if digits <= 2 => NotYet,
                Some(b'.') => is((1..=2).contains(&digits)),
                _ => No,
            }
        }
        [len, 0 | 1, 0, 0, 0xff, low, high, text, ..] => {
            let code = u16::from_le_bytes([*low, *high]);
            is((1000..4000).contains(&code) && *len > 7 && (text.is_ascii_alphabetic() || *text == b'#'))
        }
        [_, 0 | 1, 0, 0, 10 | 0xff, ..] | [_, 0 | 1, 0, 0] | [_, 0 | 1, 0] | [_, 0 | 1] | [_] | []
            if bytes.len() < 8 =>
        {
            NotYet
        }
        _ => No,
    }
}

/// MySQL, who answers the greeting: packet 1 with what it can, the 4.1 protocol among it.
pub fn mysql_client(bytes: &[u8]) -> Fit {
    match bytes {
        [_, 0 | 1, 0, 1, _, high, ..] => like(high & 0x02 != 0),
        [_, 0 | 1, 0, 1, _] | [_, 0 | 1, 0, 1] | [_, 0 | 1, 0] | [_, 0 | 1] | [_] | [] => NotYet,
        _ => No,
    }
}

/// What begins a connection of PostgreSQL instead of a version: cancel, TLS, GSSAPI.
pub const CANCEL: u32 = 80_877_102;
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSS_REQUEST: u32 = 80_877_104;

/// PostgreSQL, who asks ("Message Formats": StartupMessage, SSLRequest, GSSENCRequest, CancelRequest).
pub fn pgsql_client(bytes: &[u8]) -> Fit {
    let Some(len) = u32_at(bytes, 0) else {
        return if bytes.first().is_none_or(|b| *b == 0) { NotYet } else { No };
    };
    let Some(code) = u32_at(bytes, 4) else { return if len <= 10_000 { NotYet } else { No } };
    match (code, len) {
        (SSL_REQUEST | GSS_REQUEST, 8) | (CANCEL, 16..=272) => Is,
        (0x0003_0000..=0x0003_00ff, 9..=10_000) => match bytes.get(8) {
            None => NotYet,
            Some(first) => is(first.is_ascii_lowercase() || (*first == 0 && len == 9)),
        },
        (0x0002_0000, 296) => Is,
        _ => No,
    }
}

/// PostgreSQL, who answers: a way to log in, an error, or one letter to a request.
pub fn pgsql_server(bytes: &[u8]) -> Fit {
    match bytes {
        [b'R', rest @ ..] => match (u32_at(rest, 0), u32_at(rest, 4)) {
            (Some(len), Some(kind)) => like((8..200).contains(&len) && kind <= 12),
            (Some(len), None) if !(8..200).contains(&len) => No,
            _ => NotYet,
        },
        [b'E', rest @ ..] => match u32_at(rest, 0) {
            Some(len) => match rest.get(4) {
                Some(field) => like(len < 10_000 && *field == b'S'),
                None => NotYet,
            },
            None => NotYet,
        },
        [b'S' | b'N' | b'G'] | [] => NotYet,
        [b'S' | b'G', 0x16, ..] | [b'N', b'R' | b'E' | b'S' | b'N', ..] => Like,
        _ => No,
    }
}

/// TDS: type, status, length, channel, packet, window (MS-TDS section 2.2.3.1).
fn tds(bytes: &[u8], kinds: &[u8]) -> Result<u8, Fit> {
    let kind = *bytes.first().ok_or(NotYet)?;
    if !kinds.contains(&kind) || bytes.get(1).is_some_and(|status| *status > 0x1f) {
        return Err(No);
    }
    if u16_at(bytes, 2).is_some_and(|len| !(9..=32_767).contains(&len))
        || bytes.get(7).is_some_and(|w| *w != 0)
    {
        return Err(No);
    }
    if bytes.len() < 8 { Err(NotYet) } else { Ok(kind) }
}

/// SQL Server, who asks: a pre-login, whose first option is the version and begins behind the list; a login; or a batch of a connection that was there before.
pub fn mssql_client(bytes: &[u8]) -> Fit {
    let body = bytes.get(8..).unwrap_or(&[]);
    match tds(bytes, &[0x12, 0x10, 1, 3, 14]) {
        Ok(0x12) => match body {
            [0, 0, offset, 0, 6, ..] => is(offset % 5 == 1),
            [0, 0, _, 0] | [0, 0, _] | [0, 0] | [0] | [] => NotYet,
            _ => No,
        },
        Ok(0x10) => match (u32_le_at(body, 0), u32_le_at(body, 4)) {
            (Some(len), Some(version)) => is(len <= 1 << 17
                && matches!(version & 0xff, 0..=4)
                && matches!(version >> 24, 0x70..=0x74 | 8)),
            _ => NotYet,
        },
        // All headers: a transaction's (section 2.2.5.3). Or a procedure's name or a text, in UTF-16.
        Ok(_) if bytes.get(4..6) != Some(&[0, 0]) => No, // a client names no channel
        Ok(kind) => match body {
            [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, ..] => Is,
            [len @ 1..=128, 0, a, 0, b, 0, ..] if kind == 3 && *a != 0 => {
                is(a.is_ascii_graphic() && (b.is_ascii_graphic() || *len == 1))
            }
            [a, 0, b, 0, c, 0, ..] if kind == 1 && *b != 0 => {
                like([a, b, c].iter().all(|letter| letter.is_ascii_alphabetic()))
            }
            _ if body.len() < 10 => NotYet,
            _ => Like,
        },
        Err(fit) => fit,
    }
}

/// SQL Server, who answers.
pub fn mssql_server(bytes: &[u8]) -> Fit {
    match tds(bytes, &[4]) {
        Ok(_) => Like,
        Err(fit) => fit,
    }
}

/// Digits and the end of a line behind a sign: what is behind them.
fn number(bytes: &[u8]) -> Result<&[u8], Fit> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    match bytes.get(digits..) {
        Some([b'\r', b'\n', rest @ ..]) if digits > 0 => Ok(rest),
        Some([b'\r'] | []) if digits <= 9 => Err(NotYet),
        _ => Err(No),
    }
}

/// Redis, who asks: an array of bulk strings, or a command on a line.
pub fn redis_client(bytes: &[u8]) -> Fit {
    match bytes {
        [b'*', rest @ ..] => match number(rest) {
            Ok([b'$', ..]) => Is,
            Ok([]) => NotYet,
            Ok(_) => No,
            Err(fit) => fit,
        },
        [] => NotYet,
        _ => {
            let words = [
                "PING",
                "AUTH",
                "INFO",
                "HELLO",
                "GET",
                "SET",
                "SELECT",
                "KEYS",
                "COMMAND",
                "MONITOR",
                "CONFIG",
                "QUIT",
                "ECHO",
                "DBSIZE",
                "LPUSH",
                "INCR",
                "DEL",
                "SUBSCRIBE",
            ];
            // On a line of its own, not in front of a path.
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or(bytes);
            match command(bytes, &words) {
                Is if line.iter().any(|b| *b == b'/' || *b == b':') => No,
                Is if line.len() == bytes.len() && bytes.len() < HEAD => NotYet,
                fit => fit.at_most_like(),
            }
        }
    }
}

/// Redis, who answers.
pub fn redis_server(bytes: &[u8]) -> Fit {
    match bytes {
        [b'$' | b':' | b'*' | b'%' | b'~' | b'_', rest @ ..] => {
            match number(rest.strip_prefix(b"-").unwrap_or(rest)) {
                Ok(_) => Like,
                Err(fit) => fit,
            }
        }
        [] => NotYet,
        _ => {
            let words = [
                &b"+OK\r\n"[..],
                b"+PONG",
                b"+QUEUED",
                b"-ERR ",
                b"-NOAUTH",
                b"-WRONGTYPE",
                b"-DENIED",
                b"-MOVED ",
                b"-LOADING",
                b"-NOPERM",
                b"-WRONGPASS",
            ];
            best(words.map(|word| begins(bytes, word))).at_most_like()
        }
    }
}

/// Memcached, who asks: text (`protocol.txt`) or binary.
pub fn memcached_client(bytes: &[u8]) -> Fit {
    if let [0x80, code @ ..] = bytes {
        return if code.first().is_some_and(|code| *code > 0x48) { No } else { binary(bytes) };
    }
    let words = [
        &b"get "[..],
        b"gets ",
        b"set ",
        b"add ",
        b"replace ",
        b"append ",
        b"prepend ",
        b"cas ",
        b"delete ",
        b"incr ",
        b"decr ",
        b"touch ",
        b"gat ",
        b"stats\r\n",
        b"stats ",
        b"version\r\n",
        b"flush_all",
        b"verbosity ",
        b"quit\r\n",
        b"mn\r\n",
        b"mg ",
        b"ms ",
    ];
    best(words.map(|word| begins(bytes, word))).at_most_like()
}

/// Memcached, who answers.
pub fn memcached_server(bytes: &[u8]) -> Fit {
    if bytes.first() == Some(&0x81) {
        return binary(bytes);
    }
    let words = [
        &b"VALUE "[..],
        b"STORED\r\n",
        b"NOT_STORED\r\n",
        b"END\r\n",
        b"STAT ",
        b"ERROR\r\n",
        b"VERSION ",
        b"DELETED\r\n",
        b"NOT_FOUND\r\n",
        b"EXISTS\r\n",
        b"TOUCHED\r\n",
        b"OK\r\n",
        b"CLIENT_ERROR ",
        b"SERVER_ERROR ",
    ];
    best(words.map(|word| begins(bytes, word))).at_most_like()
}

/// Key and extras lie in the body, the data type is 0.
fn binary(bytes: &[u8]) -> Fit {
    match (u16_at(bytes, 2), bytes.get(4), bytes.get(5), u32_at(bytes, 8)) {
        (Some(key), Some(extras), Some(0), Some(body)) => like(
            key <= 250 && *extras <= 32 && body >= u32::from(key) + u32::from(*extras) && body <= 1 << 21,
        ),
        (_, _, Some(1..), _) => No,
        _ => NotYet,
    }
}

/// Memcached in a datagram: number, sequence, count, 0, and then text.
pub fn memcached_datagram(bytes: &[u8]) -> Fit {
    match bytes {
        [_, _, 0, 0, 0, _, 0, 0, text @ ..] => match best([memcached_client(text), memcached_server(text)]) {
            Like => Is,
            _ => No,
        },
        _ => No,
    }
}

/// MongoDB, who asks: it answers nothing.
pub fn mongodb_client(bytes: &[u8]) -> Fit {
    match u32_le_at(bytes, 8) {
        Some(1..) => No,
        _ => mongodb(bytes),
    }
}

/// MongoDB, either side: length, number, number of the question, operation ("MongoDB Wire Protocol").
pub fn mongodb(bytes: &[u8]) -> Fit {
    let Some(len) = u32_le_at(bytes, 0) else { return NotYet };
    if !(16..=LONGEST_MONGO).contains(&len) {
        return No;
    }
    match u32_le_at(bytes, 12) {
        None => NotYet,
        // OP_MSG has few flags, OP_COMPRESSED what was compressed, OP_QUERY as well.
        Some(2013) => match u32_le_at(bytes, 16) {
            None => NotYet,
            Some(flags) => is(flags & !0x0001_0003 == 0 && len >= 26),
        },
        Some(2004 | 2012) => is(len >= 25),
        Some(1) => match u32_le_at(bytes, 16) {
            None => NotYet,
            Some(flags) => is(flags & !0xf == 0 && len >= 36),
        },
        Some(2001 | 2002 | 2005..=2007 | 2010 | 2011) => Like,
        Some(_) => No,
    }
}

/// Cassandra, who asks: OPTIONS without a body, or STARTUP with the version of CQL (CQL BINARY PROTOCOL section 4.1).
pub fn cassandra_client(bytes: &[u8]) -> Fit {
    if cassandra_node(bytes) >= NotYet && bytes.first() == Some(&0xca) {
        return cassandra_node(bytes);
    }
    let (Some(version @ 1..=5), Some(flags)) = (bytes.first(), bytes.get(1)) else {
        return if bytes.len() < 2 && bytes.first().is_none_or(|v| (1..=5).contains(v)) {
            NotYet
        } else {
            No
        };
    };
    let at = if *version >= 3 { 4 } else { 3 };
    match (bytes.get(at), u32_at(bytes, at + 1)) {
        _ if *flags > 0x1f => No,
        (Some(5), Some(len)) => like(len == 0),
        (Some(1), Some(_)) => {
            // A map of at least one pair of strings.
            let map = bytes.get(at + 5..).unwrap_or(&[]);
            match map {
                [0, 1..=9, 0, 5..=32, first, ..] => is(first.is_ascii_uppercase()),
                _ if map.len() < 5 => NotYet,
                _ => No,
            }
        }
        (Some(1 | 5) | None, None) => NotYet,
        _ => No,
    }
}

/// Cassandra between nodes, either side (`HandshakeProtocol.java`).
fn cassandra_node(bytes: &[u8]) -> Fit {
    begins(bytes, &[0xca, 0x55, 0x2d, 0xfa])
}

/// Cassandra, who answers.
pub fn cassandra_server(bytes: &[u8]) -> Fit {
    if cassandra_node(bytes) >= NotYet && bytes.first() == Some(&0xca) {
        return cassandra_node(bytes);
    }
    let (Some(version @ 0x81..=0x85), Some(flags)) = (bytes.first(), bytes.get(1)) else {
        return if bytes.len() < 2 && bytes.first().is_none_or(|v| (0x81..=0x85).contains(v)) {
            NotYet
        } else {
            No
        };
    };
    let at = if *version >= 0x83 { 4 } else { 3 };
    match (bytes.get(at), u32_at(bytes, at + 1)) {
        (Some(0 | 2 | 3 | 6 | 8), Some(len)) if *flags <= 0x1f => like(len <= 1 << 20),
        (Some(0 | 2 | 3 | 6 | 8) | None, None) if *flags <= 0x1f => NotYet,
        _ => No,
    }
}

/// Elasticsearch between nodes, either side: `ES`, a length, a number that has not grown far; or a ping of length -1.
pub fn elasticsearch(bytes: &[u8]) -> Fit {
    match begins(bytes, b"ES") {
        Is => match (u32_at(bytes, 2), u32_at(bytes, 6)) {
            (Some(u32::MAX), _) => Is,
            (Some(len), Some(high)) => is((13..=1 << 30).contains(&len) && high < 256),
            (Some(len), None) if !(13..=1 << 30).contains(&len) => No,
            _ => NotYet,
        },
        fit => fit,
    }
}

/// MQTT, who asks: CONNECT with the protocol's name and level (MQTT 3.1.1 section 3.1).
pub fn mqtt_client(bytes: &[u8]) -> Fit {
    let rest = match bytes {
        [0x10, rest @ ..] => rest,
        [] => return NotYet,
        _ => return No,
    };
    let more = rest.iter().take(3).take_while(|b| **b & 0x80 != 0).count();
    match rest.get(more) {
        None => NotYet,
        Some(last) if last & 0x80 != 0 => No,
        Some(_) => {
            let name = rest.get(more + 1..).unwrap_or(&[]);
            best([
                begins(name, &[0, 4, b'M', b'Q', b'T', b'T']),
                begins(name, &[0, 6, b'M', b'Q', b'I', b's', b'd', b'p']),
            ])
        }
    }
}

/// MQTT, who answers: CONNACK.
pub fn mqtt_server(bytes: &[u8]) -> Fit {
    match bytes {
        [0x20, len @ 2..=127, session @ 0..=1, ..] => like(*len < 120 && *session <= 1),
        [0x20, _] | [0x20] | [] => NotYet,
        _ => No,
    }
}

/// AMQP, either side: its name and a version (AMQP 0-9-1 section 4.2.2, AMQP 1.0 section 2.2).
pub fn amqp(bytes: &[u8]) -> Fit {
    match bytes.get(4) {
        Some(kind) => begins(bytes, b"AMQP").min(is(matches!(kind, 0..=3))),
        None => begins(bytes, b"AMQP").min(NotYet),
    }
}
