//! Examples of each protocol as its document has them, what only looks like it, and the promises for any bytes.

use proptest::prelude::*;

use super::arbitrary_input;
use super::follow::{Follow, Turn};
use super::recognise::{Answer, Datagrams, Ends, Heads};
use crate::packet::App;

const ENDS: Ends = Ends { ports: [40_000, 9999], is_guess: false };

/// What both directions of a connection are on a port that means nothing; `""`: it says nothing.
fn stream(client: &[u8], server: &[u8]) -> Answer {
    at(&ENDS, client, server)
}

fn at(ends: &Ends, client: &[u8], server: &[u8]) -> Answer {
    let mut heads = Heads::default();
    heads.take(false, client);
    heads.take(true, server);
    heads.answer(ends)
}

fn datagrams(list: &[(bool, &[u8])]) -> Answer {
    let mut seen = Datagrams::default();
    let mut answer = Answer::NotYet;
    for (reply, datagram) in list {
        if answer == Answer::NotYet {
            answer = seen.take(*reply, datagram, ENDS.ports, 8);
        }
    }
    answer
}

fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(len, 0);
    bytes
}

/// A ClientHello's first bytes (RFC 8446 section 4.1.2).
const HELLO: &[u8] =
    &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
/// An AS-REQ's (RFC 4120 section 5.4.1).
const AS_REQ: &[u8] = &[
    0x6a, 0x81, 0xb0, 0x30, 0x81, 0xad, 0xa1, 3, 2, 1, 5, 0xa2, 3, 2, 1, 10, 0xa3, 0x15, 0x30, 0x13, 0x30,
    0x11,
];
/// SNMPv2c, a GetRequest of the community "public" (RFC 3416 section 3).
const SNMP: &[u8] = &[
    0x30, 0x26, 2, 1, 1, 4, 6, b'p', b'u', b'b', b'l', b'i', b'c', 0xa0, 0x19, 2, 1, 1, 2, 1, 0, 2, 1, 0,
    0x30, 0x0e, 0x30, 0x0c, 6, 8, 0x2b, 6, 1, 2, 1, 1, 2, 0, 5, 0,
];
/// LDAP: a bind, nobody by name, with a password that is empty (RFC 4511 section 4.2).
const BIND: &[u8] = &[0x30, 12, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0];
const BIND_RESPONSE: &[u8] = &[0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0];
/// StartTLS (RFC 4511 section 4.14.1).
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// Client, server, what they speak.
const STREAMS: &[(&[u8], &[u8], App)] = &[
    (b"GET / HTTP/1.1\r\n", b"", App::Http),
    (b"", b"HTTP/1.1 200 OK\r\n", App::Http),
    (b"PROPFIND /dav HTTP/1.1\r\n", b"", App::Http),
    (b"BREW /pot HTTP/1.1\r\n", b"", App::Http),
    (b"CONNECT www.example.com:443 HTTP/1.1\r\n", b"", App::Http),
    (b"GET http://www.example.com/ HTTP/1.0\r\n", b"", App::Http),
    (b"OPTIONS * HTTP/1.1\r\n", b"", App::Http),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", App::Http2),
    (HELLO, b"", App::Tls),
    (b"", &[22, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3, 1, 2, 3, 4, 5], App::Tls),
    (b"", &[21, 3, 1, 0, 2, 2, 40], App::Tls),
    // The same hello in records of a byte and of two.
    (&[22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 2, 0, 1, 22, 3, 1, 0, 3, 0xfc, 3, 3], b"", App::Tls),
    // SSL 2 (RFC 5246 appendix E.2).
    (&[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 5], b"", App::Tls),
    (b"SSH-2.0-OpenSSH_9.6\r\n", b"", App::Ssh),
    (b"", b"SSH-1.99-Cisco-1.25\n", App::Ssh),
    (b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01", b"", App::Dns),
    (b"", b"220 mail.example.com ESMTP Postfix\r\n", App::Smtp),
    (b"EHLO a\r\n", b"220 mx.example.com ready\r\n", App::Smtp),
    (b"QUIT\r\n", b"220 SMTP here\r\n", App::Smtp),
    (b"", b"220 (vsFTPd 3.0.5)\r\n", App::Ftp),
    (b"USER anonymous\r\n", b"220 Welcome\r\n", App::Ftp),
    (b"FEAT\r\n", b"220-Hello\r\n", App::Ftp),
    (b"USER bob\r\n", b"+OK ready <1896.697170952@dbc>\r\n", App::Pop3),
    (b"", b"+OK POP3 ready\r\n", App::Pop3),
    (b"", b"* OK [CAPABILITY IMAP4rev1] ready\r\n", App::Imap),
    (b"a001 CAPABILITY\r\n", b"", App::Imap),
    (b"MODE READER\r\n", b"", App::Nntp),
    (b"GROUP misc.test\r\n", b"200 ready\r\n", App::Nntp),
    (&[0xff, 0xfd, 0x18, 0xff, 0xfd, 0x20], b"", App::Telnet),
    (&[0xff, 0xfd, 3], b"\xff\xfb\x03login: ", App::Telnet),
    (BIND, b"", App::Ldap),
    (START_TLS, b"", App::Ldap),
    (b"", BIND_RESPONSE, App::Ldap),
    (&[0x30, 0x84, 0, 0, 0, 0x10, 2, 1, 1, 0x60, 0x84, 0, 0, 0, 7, 2, 1, 3, 4, 0, 0x80, 0], b"", App::Ldap),
    (&[0, 0, 0, 0x54, 0xff, b'S', b'M', b'B', 0x72], b"", App::Smb),
    (b"", &[0, 0, 0, 0x54, 0xfe, b'S', b'M', b'B', 0x40], App::Smb),
    (&[3, 0, 0, 0x13, 0x0e, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0], b"", App::Rdp),
    (b"\x03\x00\x00\x2a\x25\xe0\x00\x00\x00\x00\x00Cookie: mstshash=bob", b"", App::Rdp),
    (&[3, 0, 0, 11, 6, 0xe0, 0, 0, 0, 0, 0], &[3, 0, 0, 11, 6, 0xd0, 0, 0, 0x12, 0x34, 0], App::Rdp),
    (&[3, 0, 0, 0x16, 0x11, 0xe0, 0, 0, 0, 1, 0, 0xc1, 2, 1, 0, 0xc2, 2, 1, 2, 0xc0, 1, 10], b"", App::Cotp),
    (b"", b"\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00", App::Mysql),
    (b"", b"\x45\x00\x00\x00\xff\x6a\x04Host '10.0.0.1' is not allowed", App::Mysql),
    (b"\x00\x00\x00\x54\x00\x03\x00\x00user\x00bob\x00", b"", App::Pgsql),
    (&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], b"", App::Pgsql),
    (&[0x12, 1, 0, 0x2f, 0, 0, 1, 0, 0, 0, 0x1a, 0, 6, 1, 0, 0x20], b"", App::Mssql),
    (b"*1\r\n$4\r\nPING\r\n", b"", App::Redis),
    (b"PING\r\n", b"+PONG\r\n", App::Redis),
    (b"GET name\r\n", b"$3\r\nbob\r\n", App::Redis),
    (b"get name\r\n", b"VALUE name 0 3\r\nbob\r\n", App::Memcached),
    (&[0x38, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0, 0, 0, 0, 0, 0], b"", App::Mongodb),
    (&[0x3a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xd4, 7, 0, 0, 0, 0, 0, 0, b'a'], b"", App::Mongodb),
    (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd", b"", App::Mqtt),
    (b"\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x04abcd", b"", App::Mqtt),
    (b"AMQP\x00\x00\x09\x01", b"", App::Amqp),
    (&[4, 0, 0, 0, 5, 0, 0, 0, 0], &[0x84, 0, 0, 0, 6, 0, 0, 0, 40], App::Cassandra),
    (b"ES\x00\x00\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01", b"", App::Elasticsearch),
    (b"INVITE sip:bob@biloxi.example.com SIP/2.0\r\n", b"", App::Sip),
    (b"", b"SIP/2.0 100 Trying\r\n", App::Sip),
    (b"OPTIONS rtsp://example.com/media.mp4 RTSP/1.0\r\n", b"", App::Rtsp),
    (b"\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x05", b"", App::Bittorrent),
    (&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], b"", App::Stun),
    (&[0x80, 0, 0, 0x28, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x86, 0xa3, 0, 0, 0, 3], b"", App::Nfs),
    (b"", b"RFB 003.008\n", App::Rfb),
    (&[5, 0, 11, 3, 0x10, 0, 0, 0, 0x48, 0, 0, 0, 1, 0, 0, 0], b"", App::Dcerpc),
    (b"<?xml version='1.0'?><stream:stream to='example.com'>", b"", App::Jabber),
    (b"NICK bob\r\n", b":irc.example.com NOTICE * :hello\r\n", App::Irc),
    (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 29, 1], b"", App::Bgp),
    (b"@RSYNCD: 31.0\n", b"", App::Rsync),
    (b"0032git-upload-pack /project.git\0host=a\0", b"", App::Git),
    (&[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 0, 80], &[5, 0], App::Socks),
    (&[5, 0x64, 5, 0xc0, 1, 0, 0, 4, 0xe9, 0x21], b"", App::Dnp3),
    (&[0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 10], &[0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 1], App::Modbus),
    // In front: PROXY headers, NetBIOS' session.
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n", b"", App::Http),
    (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0cabcdefghijklSSH-2.0-x\r\n", b"", App::Ssh),
    (
        b"\x81\x00\x00\x44 CKFDENECFDEFFCFGEFFCCACACACACACA\x00 EMEPEDEBEMEIEPFDFECACACACACACACA\x00\x00\x00\x00\x54\xffSMB",
        b"",
        App::Smb,
    ),
];

#[test]
fn connections_are_what_they_say() {
    for (client, server, app) in STREAMS {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(stream(client, server), Answer::Is(*app), "{:?} {:?}", show(client), show(server));
        // Whoever opened a connection that was there before we were is a guess.
        let guess = Ends { ports: [9999, 40_000], is_guess: true };
        // What takes both sides may take more of them then.
        let turned = at(&guess, server, client);
        let may_wait = !client.is_empty() && !server.is_empty() && turned == Answer::NotYet;
        assert!(turned == Answer::Is(*app) || may_wait, "turned: {:?} {:?}", show(client), show(server));
    }
    let mut as_req = vec![0, 0, 0, 0xb3];
    as_req.extend(AS_REQ);
    assert_eq!(stream(&as_req, b""), Answer::Is(App::Krb5));
}

/// One side alone, or something else: not decided, or nothing.
#[test]
fn what_several_could_be_is_not_decided_alone() {
    for (client, server) in [
        (&b""[..], &b"220 ready\r\n"[..]),
        (b"", b"+OK\r\n"),
        (b"USER bob\r\n", b""),
        (b"QUIT\r\n", b""),
        (b"GET name\r\n", b""),
        (b"PING\r\n", b""),
        (&[5, 1, 0], b""),
        (b"", &[21, 3, 3, 0, 26, 0, 0]),
        (b"", b""),
    ] {
        assert_eq!(stream(client, server), Answer::NotYet, "{client:?} {server:?}");
        let mut heads = Heads::default();
        heads.take(false, client);
        heads.take(true, server);
        heads.give_up();
        assert_eq!(heads.answer(&ENDS), Answer::No, "{client:?} {server:?}");
    }
    // When no more comes, the port says which of those that fit it is. It says nothing of what does not fit.
    for (port, server, found) in [
        (25, &b"220 ready\r\n"[..], Answer::Is(App::Smtp)),
        (21, b"220 ready\r\n", Answer::Is(App::Ftp)),
        (110, b"220 ready\r\n", Answer::No),
        (443, b"220 ready\r\n", Answer::No),
        (22, b"hello", Answer::No),
    ] {
        let mut heads = Heads::default();
        heads.take(true, server);
        heads.give_up();
        assert_eq!(heads.answer(&Ends { ports: [40_000, port], is_guess: false }), found, "{port}");
        assert_eq!(
            at(&Ends { ports: [40_000, port], is_guess: false }, b"", server),
            Answer::NotYet,
            "more may come"
        );
    }
}

/// Text that begins like HTTP, records that begin like TLS, and so on.
#[test]
fn what_looks_like_a_protocol_is_not_it() {
    let long = |bytes: &[u8]| padded(bytes, 40);
    for client in [
        long(b"GETTING somewhere\r\n"),
        long(b"get / http\r\n"),
        long(b"POST\r\n/ HTTP/1.1"),
        long(b"GET \x01\x02"),
        // A record of 20 kB, a hello of 10 bytes, of a version that there is not, of 16 MB.
        long(&[22, 3, 1, 0x50, 0, 1, 0, 0, 40, 3, 3]),
        long(&[22, 3, 1, 0, 50, 1, 0, 0, 10, 3, 3]),
        long(&[22, 3, 1, 0, 50, 1, 0, 0, 46, 9, 9]),
        long(&[22, 3, 1, 0, 50, 1, 0xff, 0, 46, 3, 3]),
        long(&[22, 3, 1, 0, 50, 2, 0, 0, 46, 3, 3]),
        long(&[22, 3, 9, 0, 50, 1, 0, 0, 46, 3, 3]),
        // DNS over TCP with an opcode, with answers in a query, with a label of 0xc0.
        long(&[0, 29, 1, 2, 0x29, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w', b'w', b'w']),
        long(&[0, 29, 1, 2, 1, 0, 0, 1, 0, 9, 0, 0, 0, 0, 3, b'w', b'w', b'w']),
        long(&[0, 29, 1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12]),
        long(b"SSH-9.0-x\r\n"),
        long(b"\x13BitTorrent protocal"),
        long(b"\x10\x10\x00\x04MQXT\x04"),
        long(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x31]),
        long(&[0x30, 12, 2, 1, 1, 0x60, 7, 2, 1, 9]),
        long(&[3, 0, 0, 0x13, 0x0e, 0xe0, 0, 7, 0, 0, 0, 1, 0, 8, 0]),
        long(&[0xff, 0xfd, 0x99]),
        long(&[5, 0x64, 5, 0xc0, 1, 0, 0, 4, 0xe9, 0x22]),
        long(&[0, 0, 0, 0x54, 0xff, b'S', b'M', b'A']),
        long(&[0x38, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0, 0xff, 0xff, 0, 0]),
    ] {
        let server = padded(b"\x07nothing of the kind", 40);
        assert_eq!(stream(&client, &server), Answer::No, "{:?}", String::from_utf8_lossy(&client));
    }
}

fn initiation(cookie: u8) -> Vec<u8> {
    let mut bytes = padded(&[1, 0, 0, 0], 148);
    bytes[4..132].fill(7);
    bytes[132..].fill(cookie);
    bytes
}

fn rtp(number: u16, source: u8) -> Vec<u8> {
    let mut bytes = vec![0x80, 0];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0, 0, 1, 0, source, 2, 3, 4]);
    bytes.extend([0xd5; 160]);
    bytes
}

#[test]
fn datagrams_are_what_they_say() {
    let query =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01";
    let mut dhcp = padded(&[1, 1, 6, 0, 1, 2, 3, 4], 236);
    dhcp.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut ask = padded(&[0x23], 48);
    ask[40..].fill(9);
    let mut answer = padded(&[0x24, 2, 3, 0xe9], 48);
    answer[12..].fill(9);
    let mut quic = padded(&[0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0xd0], 1200);
    quic[20..].fill(0x5a);
    let gquic = padded(b"\x0d\x01\x02\x03\x04\x05\x06\x07\x08Q043\x01", 60);
    let mut dtls =
        vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 48, 0xfe, 0xfd];
    dtls.resize(73, 1);
    let stun =
        [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12], &[0x80, 0x22, 0, 4, b'x', b'y', b'z', b'w']]
            .concat();
    let mut ike = padded(&[1, 2, 3, 4, 5, 6, 7, 8], 60);
    ike[16..28].copy_from_slice(&[33, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 60]);
    let netbios = [
        &[0x85, 0x25, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 32][..],
        b"EFEDENDKEFPEEFAAEFPEENEJEPFCACAC",
        &[0, 0, 0x20, 0, 1],
    ]
    .concat();
    let radius =
        [&[1, 9, 0, 34][..], &[5; 16], &[1, 5, b'b', b'o', b'b', 4, 6, 10, 0, 0, 1, 5, 3, 0]].concat();
    let call = [1u32, 0, 2, 100_003, 3, 1].iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
    let rtcp = [0x80, 200, 0, 6]
        .iter()
        .copied()
        .chain([1; 24])
        .chain([0x81, 202, 0, 1, 1, 2, 3, 4])
        .collect::<Vec<_>>();
    let utp = |kind: u8, number: u16, answered: u16| {
        let mut bytes = vec![kind << 4 | 1, 0, 0x12, 0x34, 1, 2, 3, 4, 0, 0, 0, 0, 0, 4, 0, 0];
        bytes.extend(number.to_be_bytes());
        bytes.extend(answered.to_be_bytes());
        bytes
    };
    let (asks, answers) = (utp(4, 1, 0), utp(2, 1000, 1));
    for (list, app) in [
        (vec![(false, &query[..])], App::Dns),
        (vec![(false, &dhcp)], App::Dhcp),
        (vec![(false, &ask)], App::Ntp),
        (vec![(true, &answer[..]), (false, &padded(&[0x1b, 3], 48))], App::Ntp),
        (vec![(false, SNMP)], App::Snmp),
        (vec![(false, AS_REQ)], App::Krb5),
        (vec![(false, &quic)], App::Quic),
        (vec![(false, &gquic)], App::Quic),
        (vec![(true, &[0xc5, 0, 0, 0, 0, 0, 2, 1, 2, 0x0a, 0x1a, 0x2a, 0x3a, 0, 0, 0, 1])], App::Quic),
        (vec![(false, &dtls)], App::Dtls),
        (vec![(false, &initiation(0))], App::Wireguard),
        (vec![(false, &initiation(3)[..]), (true, &padded(&[2, 0, 0, 0, 9], 92))], App::Wireguard),
        (vec![(false, &stun)], App::Stun),
        (vec![(false, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")], App::BittorrentDht),
        (vec![(false, &asks[..]), (true, &answers)], App::Bittorrent),
        (vec![(false, &[0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4])], App::Bittorrent),
        (vec![(false, b"REGISTER sip:example.com SIP/2.0\r\nVia: x\r\n\r\n")], App::Sip),
        (vec![(false, b"<34>1 2003-10-11T22:14:15.003Z host su - ID47 - failed")], App::Syslog),
        (vec![(false, b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n")], App::Ssdp),
        (vec![(false, b"\x00\x01boot.img\x00octet\x00")], App::Tftp),
        (vec![(true, b"\x00\x03\x00\x01data"), (false, b"\x00\x04\x00\x01")], App::Tftp),
        (vec![(false, &ike)], App::Ike),
        (vec![(false, &[&[0, 0, 0, 0][..], &ike].concat())], App::Ike),
        (vec![(false, &netbios)], App::Netbios),
        (vec![(false, &radius)], App::Radius),
        (vec![(false, &call)], App::Nfs),
        (vec![(false, &rtcp)], App::Rtcp),
        (vec![(false, &rtp(10, 1)[..]), (false, &rtp(11, 1))], App::Rtp),
        (vec![(false, b"\x00\x01\x00\x00\x00\x01\x00\x00get name\r\n")], App::Memcached),
    ] {
        assert_eq!(datagrams(&list), Answer::Is(app));
    }
}

/// Media that looks like STUN, DNS or itself; numbers that are nearly right.
#[test]
fn what_looks_like_a_datagram_is_not_it() {
    let other = rtp(10, 1);
    for list in [
        // RTP alone, of two sources, far apart.
        vec![(false, &other[..])],
        vec![(false, &other), (false, &rtp(11, 2))],
        vec![(false, &other), (false, &rtp(4000, 1))],
        vec![(false, &other), (true, &rtp(11, 2))],
        // STUN's cookie with a length that is wrong; without a cookie.
        vec![(false, &padded(&[0, 1, 0, 9, 0x21, 0x12, 0xa4, 0x42], 29))],
        vec![(false, &padded(&[0, 1, 0, 0, 9, 9, 9, 9], 20))],
        // WireGuard with a byte too many, with something reserved.
        vec![(false, &padded(&[1, 0, 0, 0, 9], 149))],
        vec![(false, &padded(&[1, 0, 0, 1, 9], 148))],
        // A list of versions, none of which anybody knows; zeros.
        vec![(false, &[0x80, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7])],
        vec![(false, &padded(&[0x80], 27))],
        // QUIC of a version that there is not; a short header; a connection of 30 bytes.
        vec![(false, &padded(&[0xc3, 7, 7, 7, 7, 8], 1200))],
        vec![(false, &padded(&[0x43, 0, 0, 0, 1, 8], 1200))],
        vec![(false, &padded(&[0xc3, 0, 0, 0, 1, 30], 1200))],
        // DTLS whose record is longer than the datagram.
        vec![(false, &[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1, 0, 0, 48])],
        // 48 bytes of any kind; a server's answer alone.
        vec![(false, &padded(&[0xff, 1, 2, 3], 48))],
        vec![(true, &padded(&[0x24, 2, 3], 48))],
        // SNMP that is longer than its datagram.
        vec![(false, &SNMP[..SNMP.len() - 1])],
        vec![(false, b"<999>what")],
        vec![(false, b"\x00\x01boot.img\x00octets\x00")],
        vec![(false, b"hello")],
    ] {
        assert_eq!(datagrams(&list), Answer::NotYet, "{list:?}");
    }
    let many: Vec<(bool, &[u8])> = vec![(false, b"hello"); 8];
    assert_eq!(datagrams(&many), Answer::No);
}

/// DNS has one form, and three ports.
#[test]
fn ports_say_whose_dns_it_is() {
    let query = b"\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04host\x05local\x00\x00\x01\x00\x01";
    for (port, app) in [(53, App::Dns), (5353, App::Mdns), (5355, App::Llmnr), (9, App::Dns)] {
        assert_eq!(Datagrams::default().take(false, query, [40_000, port], 8), Answer::Is(app));
    }
    // What only fits is enough on its own port.
    let mut answer = padded(&[0x24, 2, 3, 0xe9], 48);
    answer[12..].fill(9);
    assert_eq!(Datagrams::default().take(true, &answer, [40_000, 123], 8), Answer::Is(App::Ntp));
}

#[test]
fn connections_change_over_or_do_not() {
    let then = |lines: &[u8]| [lines, HELLO].concat();
    for (app, client, turn) in [
        (App::Smtp, then(b"EHLO a\r\nSTARTTLS\r\n"), Turn::Encrypted),
        (App::Smtp, b"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n".to_vec(), Turn::Plain),
        (App::Smtp, b"EHLO a\r\nAUTH ".to_vec(), Turn::Plain),
        (App::Smtp, b"EHLO auth\r\nNOOP\r\n".to_vec(), Turn::Open),
        (App::Smtp, b"EHLO a\r\nMAIL".to_vec(), Turn::Open),
        (App::Imap, then(b"a1 CAPABILITY\r\na2 STARTTLS\r\n"), Turn::Encrypted),
        (App::Imap, b"a1 CAPABILITY\r\na2 LOGIN bob".to_vec(), Turn::Plain),
        (App::Pop3, then(b"CAPA\r\nSTLS\r\n"), Turn::Encrypted),
        (App::Pop3, b"CAPA\r\nUSER bob\r\n".to_vec(), Turn::Plain),
        (App::Ftp, then(b"FEAT\r\nAUTH TLS\r\n"), Turn::Encrypted),
        (App::Ftp, b"AUTH TLS\r\nUSER bob\r\n".to_vec(), Turn::Plain),
        (App::Nntp, b"MODE READER\r\nGROUP misc.test\r\n".to_vec(), Turn::Plain),
        (
            App::Jabber,
            then(b"<?xml version='1.0'?><stream:stream to='a'><starttls xmlns='x'/>"),
            Turn::Encrypted,
        ),
        (App::Jabber, b"<stream:stream to='a'><auth mechanism='PLAIN'>".to_vec(), Turn::Plain),
        (App::Ldap, then(START_TLS), Turn::Encrypted),
        (App::Ldap, BIND.to_vec(), Turn::Plain),
        (App::Ldap, [START_TLS, BIND].concat(), Turn::Plain),
        (App::Pgsql, then(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]), Turn::Encrypted),
        (
            App::Pgsql,
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x54\x00\x03\x00\x00user".to_vec(),
            Turn::Plain,
        ),
        (App::Mysql, then(&padded(&[32, 0, 0, 1, 0x8d, 0xae, 3, 0], 36)), Turn::Encrypted),
        (App::Mysql, padded(&[0x50, 0, 0, 1, 0x85, 0xa6, 3, 0], 84), Turn::Plain),
        (
            App::Rdp,
            then(&[3, 0, 0, 0x13, 0x0e, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0]),
            Turn::Encrypted,
        ),
        (
            App::Rdp,
            [&[3, 0, 0, 11, 6, 0xe0, 0, 0, 0, 0, 0][..], &[3, 0, 1, 0xca, 2, 0xf0]].concat(),
            Turn::Over,
        ),
        (
            App::Http,
            then(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nUser-Agent: x\r\n\r\n"),
            Turn::Encrypted,
        ),
        (
            App::Http,
            b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\nGET /".to_vec(),
            Turn::Plain,
        ),
    ] {
        for cut in [1, 2, 7, client.len()] {
            let mut follow = Follow::of(app, &client).unwrap();
            let turns = client.chunks(cut).map(|part| follow.take(part));
            let found = turns.into_iter().find(|turn| *turn != Turn::Open).unwrap_or(Turn::Open);
            assert_eq!(found, turn, "{app:?} {:?} in {cut}", String::from_utf8_lossy(&client));
        }
    }
    assert!(Follow::of(App::Http, b"GET / HTTP/1.1\r\n").is_none());
    assert!(Follow::of(App::Ssh, b"SSH-2.0-x").is_none());
}

/// Whoever says nothing of note for long is in the clear.
#[test]
fn following_has_an_end() {
    let mut follow = Follow::of(App::Smtp, b"").unwrap();
    let turns: Vec<Turn> = (0..70).map(|_| follow.take(b"NOOP\r\n")).collect();
    assert_eq!(turns.iter().position(|turn| *turn == Turn::Plain), Some(63));
    let mut follow = Follow::of(App::Smtp, b"").unwrap();
    assert_eq!(
        (0..9).map(|_| follow.take(&[b'x'; 1000])).find(|turn| *turn != Turn::Open),
        Some(Turn::Plain)
    );
}

/// Bytes in front of a command that nobody kept.
#[test]
fn what_was_lost_is_not_guessed() {
    let mut follow = Follow::of(App::Smtp, b"").unwrap();
    assert_eq!(follow.lose(10), Turn::Open);
    assert_eq!(follow.take(b"MAIL FROM:<a>\r\n"), Turn::Open, "it may be the end of a line");
    assert_eq!(follow.take(b"MAIL FROM:<a>\r\n"), Turn::Plain);
    let mut follow = Follow::of(App::Ldap, b"").unwrap();
    assert_eq!((follow.take(&START_TLS[..12]), follow.lose(19)), (Turn::Open, Turn::Open));
    assert_eq!(follow.take(HELLO), Turn::Encrypted);
    assert_eq!(Follow::of(App::Ldap, b"").unwrap().lose(5), Turn::Over);
}

/// What fuzzing has found: a control character in what a request asks for, and a blank behind it.
#[test]
fn what_was_found_once() {
    arbitrary_input::flows(b"\x47\x45T /P6\x124\x01\x00220 \x00\x00\x00\x00\x03www\x07exa00le\x03com");
    arbitrary_input::flows(b"\x01\x82CONNGET /\xffCONNECT1\x13GET / \x13\xad");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        arbitrary_input::flows(&bytes);
    }

    /// Nearly right: an example, cut and damaged.
    #[test]
    fn damaged_examples(
        which in 0..STREAMS.len(), other in 0..STREAMS.len(), cut in any::<u8>(), guess in any::<bool>(),
        damage in proptest::collection::vec((0usize..48, any::<u8>()), 0..3), short in 0usize..48,
    ) {
        let (client, server) = (STREAMS[which], STREAMS[other]);
        let mut client = if client.0.is_empty() { client.1.to_vec() } else { client.0.to_vec() };
        for (at, byte) in damage {
            if let Some(place) = client.get_mut(at) {
                *place = byte;
            }
        }
        client.truncate(client.len().saturating_sub(short).clamp(1, 127));
        let way = (client.len() as u8) << 1 | u8::from(guess);
        let server = if server.1.is_empty() { server.0 } else { server.1 };
        arbitrary_input::flows(&[&[cut, way][..], &client, server].concat());
    }
}

/// What a flow costs, whatever it speaks.
const _: () = assert!(super::PerFlow::<super::Flow>::BYTES <= 112);
