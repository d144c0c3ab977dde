//! What flows speak: application protocols by name, as a closed list. Recognised by the stage `appid`; remembered in a flow's entry, shown in a
//! packet's [`Meta`](super::Meta), written in records.
//!
//! Words are those of Suricata 7 (`app-layer-protos.c`); those that it does not have are ours and marked so.

macro_rules! apps {
    ($($(#[doc = $doc:literal])+ $variant:ident $word:literal,)*) => {
        /// An application protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum App { $($(#[doc = $doc])+ $variant,)* }

        impl App {
            /// All of them.
            pub const ALL: &'static [App] = &[$(App::$variant,)*];

            /// The word in records, settings and metrics.
            pub const fn word(self) -> &'static str {
                match self { $(App::$variant => $word,)* }
            }

            /// One line.
            pub const fn help(self) -> &'static str {
                match self { $(App::$variant => concat!($($doc,)+).trim_ascii(),)* }
            }
        }
    };
}

apps! {
    /// HTTP/1 and before, WebSocket included.
    Http "http",
    /// HTTP/2 without TLS.
    Http2 "http2",
    /// TLS and SSL.
    Tls "tls",
    /// SSH.
    Ssh "ssh",
    /// DNS, over UDP or TCP.
    Dns "dns",
    /// FTP, its control connection.
    Ftp "ftp",
    /// SMTP and LMTP.
    Smtp "smtp",
    /// POP3.
    Pop3 "pop3",
    /// IMAP.
    Imap "imap",
    /// Telnet, with options negotiated.
    Telnet "telnet",
    /// LDAP, over TCP or UDP.
    Ldap "ldap",
    /// SMB, any version.
    Smb "smb",
    /// RDP.
    Rdp "rdp",
    /// MySQL and MariaDB (ours).
    Mysql "mysql",
    /// PostgreSQL.
    Pgsql "pgsql",
    /// Redis (ours).
    Redis "redis",
    /// MongoDB (ours).
    Mongodb "mongodb",
    /// MQTT.
    Mqtt "mqtt",
    /// SIP.
    Sip "sip",
    /// NTP.
    Ntp "ntp",
    /// SNMP.
    Snmp "snmp",
    /// DHCP and BOOTP.
    Dhcp "dhcp",
    /// Kerberos 5.
    Krb5 "krb5",
    /// QUIC, Google's included.
    Quic "quic",
    /// DTLS (ours).
    Dtls "dtls",
    /// WireGuard (ours).
    Wireguard "wireguard",
    /// STUN and TURN (ours).
    Stun "stun",
    /// BitTorrent: peers, uTP, trackers over UDP (ours).
    Bittorrent "bittorrent",
    /// BitTorrent's distributed hash table.
    BittorrentDht "bittorrent-dht",
    /// Multicast DNS (ours): DNS on its port.
    Mdns "mdns",
    /// LLMNR (ours): DNS on its port.
    Llmnr "llmnr",
    /// NetBIOS names and datagrams (ours).
    Netbios "netbios",
    /// Syslog (ours).
    Syslog "syslog",
    /// Microsoft SQL Server, TDS (ours).
    Mssql "mssql",
    /// Memcached (ours).
    Memcached "memcached",
    /// Cassandra's CQL (ours).
    Cassandra "cassandra",
    /// Elasticsearch between nodes (ours).
    Elasticsearch "elasticsearch",
    /// NFS.
    Nfs "nfs",
    /// Other programs of ONC RPC (ours).
    Rpc "rpc",
    /// DCE/RPC.
    Dcerpc "dcerpc",
    /// DNP3.
    Dnp3 "dnp3",
    /// Modbus over TCP.
    Modbus "modbus",
    /// EtherNet/IP.
    Enip "enip",
    /// ISO transport over TCP: S7 and other control systems (ours).
    Cotp "cotp",
    /// RFB, which VNC speaks.
    Rfb "rfb",
    /// NNTP.
    Nntp "nntp",
    /// IRC.
    Irc "irc",
    /// XMPP.
    Jabber "jabber",
    /// RTSP (ours).
    Rtsp "rtsp",
    /// RTP (ours).
    Rtp "rtp",
    /// RTCP (ours).
    Rtcp "rtcp",
    /// AMQP (ours).
    Amqp "amqp",
    /// SOCKS 4 and 5 (ours).
    Socks "socks",
    /// BGP (ours).
    Bgp "bgp",
    /// Rsync's daemon (ours).
    Rsync "rsync",
    /// Git's daemon (ours).
    Git "git",
    /// TFTP.
    Tftp "tftp",
    /// IKE.
    Ike "ike",
    /// RADIUS (ours).
    Radius "radius",
    /// SSDP (ours).
    Ssdp "ssdp",
    /// Nothing that is known: looked at, and given up.
    Failed "failed",
}

impl App {
    /// The protocol of that word.
    pub fn named(word: &str) -> Option<App> {
        App::ALL.iter().copied().find(|app| app.word() == word)
    }
}

/// What a flow speaks, and what it spoke before it changed over to TLS (STARTTLS). Two bytes, of which 0 is "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    pub(crate) app: u8,
    pub(crate) before: u8,
}

impl Spoken {
    /// That protocol.
    pub fn of(app: App) -> Self {
        Spoken { app: app as u8 + 1, before: 0 }
    }

    /// It has changed over to that one.
    #[must_use]
    pub fn became(self, app: App) -> Self {
        Spoken { app: app as u8 + 1, before: self.app }
    }

    /// What it speaks.
    pub fn app(self) -> Option<App> {
        App::ALL.get(usize::from(self.app.checked_sub(1)?)).copied()
    }

    /// What it spoke before.
    pub fn before(self) -> Option<App> {
        App::ALL.get(usize::from(self.before.checked_sub(1)?)).copied()
    }

    /// Both as words.
    pub(crate) fn words(self) -> (Option<&'static str>, Option<&'static str>) {
        (self.app().map(App::word), self.before().map(App::word))
    }
}

/// A set of protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apps(u128);

impl Apps {
    /// Is it in?
    #[inline(always)]
    pub const fn has(self, app: App) -> bool {
        self.0 >> (app as u8) & 1 != 0
    }

    /// With it.
    #[must_use]
    pub const fn with(self, app: App) -> Apps {
        Apps(self.0 | 1 << (app as u8))
    }

    /// Those that are in this one and not in the other.
    #[must_use]
    pub const fn without(self, other: Apps) -> Apps {
        Apps(self.0 & !other.0)
    }

    /// Is none in it?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = App> {
        App::ALL.iter().copied().filter(move |app| self.has(*app))
    }
}

impl FromIterator<App> for Apps {
    fn from_iter<I: IntoIterator<Item = App>>(apps: I) -> Self {
        apps.into_iter().fold(Apps::default(), Apps::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_protocols() {
        const { assert!(App::ALL.len() < 128, "a set has 128 bits, a number 8") }
        for (n, app) in App::ALL.iter().enumerate() {
            assert_eq!((App::named(app.word()), *app as usize), (Some(*app), n));
        }
        assert_eq!(App::named("HTTP"), None);
    }

    #[test]
    fn a_flow_remembers_what_it_was() {
        assert_eq!(Spoken::default().words(), (None, None));
        let mail = Spoken::of(App::Smtp);
        assert_eq!(mail.became(App::Tls).words(), (Some("tls"), Some("smtp")));
        assert_eq!(Spoken { app: 255, before: 255 }.words(), (None, None));
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: Apps = [App::Http, App::Failed].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [App::Http, App::Failed]);
        assert!(set.has(App::Failed) && !set.has(App::Tls) && set.without(set).is_empty());
    }
}
