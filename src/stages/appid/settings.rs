//! What a `[[stage]]` of this kind says.

use std::sync::Arc;

use serde::Deserialize;

use super::rules::{PLAIN, Plaintext, Rules};
use crate::config::{self, Problem};
use crate::packet::{App, Apps};

pub(super) const EXAMPLE: &str = r#"[[stage]]
use = "appid"
deny = ["bittorrent", "telnet"]
plaintext = "report"
plaintext_allow = ["http"]
"#;

pub(super) const HELP: &str = r#"deny             protocols that may not be spoken, on whatever port: ["bittorrent", "telnet"]
allow            if given, no others may be spoken. A connection that changes over to TLS goes by
                 what it was before; "dns" does not allow "quic", nor "http" "http2"
unknown          flows of which nobody knows what they speak: pass or deny. Default: pass, or
                 deny where allow is given
plaintext        flows that are not encrypted: off (default), report (an alert for each flow) or
                 deny. SMTP, IMAP, POP3, FTP, NNTP, IRC, XMPP, LDAP, PostgreSQL, MySQL and HTTP's
                 CONNECT count when their client says in the clear what TLS would hide, and not
                 if it begins TLS before that
plaintext_allow  protocols that may be in the clear
plaintext_also   protocols that shall count as well: ["dns", "ntp"]
action           reject (default): both ends are told; drop
datagrams        datagrams of a flow that are looked at, 1 to 64, default 8
depth            bytes of a direction that may come before its first ones must do, 64 to 65535,
                 default 4096
banners          SSH connections whose banners each worker reads at a time, 1 to 65535, default 512

Looked at are the first 32 bytes of each direction of TCP, and datagrams of UDP. Protocols: http,
http2, tls, ssh, dns, ftp, smtp, pop3, imap, telnet, ldap, smb, rdp, mysql, pgsql, redis, mongodb,
mqtt, sip, ntp, snmp, dhcp, krb5, quic, dtls, wireguard, stun, bittorrent, bittorrent-dht, mdns,
llmnr, netbios, syslog, mssql, memcached, cassandra, elasticsearch, nfs, rpc, dcerpc, dnp3, modbus,
enip, cotp, rfb, nntp, irc, jabber, rtsp, rtp, rtcp, amqp, socks, bgp, rsync, git, tftp, ike,
radius, ssdp. "bittorrent" in a list is "bittorrent-dht" as well.

Plaintext are http, http2, ftp, smtp, pop3, imap, telnet, ldap, mysql, pgsql, redis, mongodb, mqtt,
sip, snmp, syslog, memcached, cassandra, elasticsearch, nfs, rpc, dcerpc, dnp3, modbus, enip, cotp,
rfb, nntp, irc, jabber, rtsp, rtp, amqp, rsync and tftp.
"#;

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) rules: Arc<Rules>,
    pub(super) drops: bool,
    pub(super) datagrams: u8,
    pub(super) depth: u32,
    pub(super) banners: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    #[default]
    Reject,
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Passes {
    Pass,
    Deny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    deny: Vec<String>,
    allow: Option<Vec<String>>,
    unknown: Option<Passes>,
    plaintext: Plaintext,
    plaintext_allow: Vec<String>,
    plaintext_also: Vec<String>,
    action: Action,
    datagrams: Option<u32>,
    depth: Option<u32>,
    banners: Option<u32>,
}

impl Settings {
    /// Reads and checks them.
    pub fn read(settings: &config::Settings<'_>) -> Result<Settings, Vec<Problem>> {
        let table: Table = settings.read()?;
        let mut problems = Vec::new();
        let mut list = |key: &str, words: &[String]| {
            let mut apps = Apps::default();
            for (i, word) in words.iter().enumerate() {
                match App::named(word).filter(|app| *app != App::Failed) {
                    Some(app) => apps = apps.with(app),
                    None => {
                        let known: Vec<&str> = App::ALL.iter().map(|app| app.word()).collect();
                        let like = config::suggestion(&word.to_ascii_lowercase(), &known);
                        let remedy = like.unwrap_or_else(|| {
                            "`sluicegate stages appid` lists those that there are".to_owned()
                        });
                        problems.push(settings.problem(
                            &format!("{key}[{i}]"),
                            format!("{word:?} is no protocol"),
                            remedy,
                        ));
                    }
                }
            }
            if apps.has(App::Bittorrent) { apps.with(App::BittorrentDht) } else { apps }
        };
        let deny = list("deny", &table.deny);
        let allow = table.allow.as_deref().map(|words| list("allow", words));
        let (fine, also) =
            (list("plaintext_allow", &table.plaintext_allow), list("plaintext_also", &table.plaintext_also));
        for app in allow.unwrap_or_default().iter().filter(|app| deny.has(*app) && *app != App::BittorrentDht)
        {
            let what = format!("{:?} is allowed and denied", app.word());
            problems.push(settings.problem("allow", what, "take it out of one of the lists"));
        }
        if table.plaintext == Plaintext::Off
            && !(table.plaintext_allow.is_empty() && table.plaintext_also.is_empty())
        {
            let what = "a list of plaintext protocols does nothing while plaintext is off";
            problems.push(settings.problem("plaintext", what, "write plaintext = \"report\" or \"deny\""));
        }
        let mut range = |key: &str, given: Option<u32>, default: u32, least: u32, most: u32| match given {
            Some(n) if n < least || n > most => {
                problems.push(settings.problem(key, format!("{n} is not between {least} and {most}"), ""));
                default
            }
            given => given.unwrap_or(default),
        };
        let datagrams = range("datagrams", table.datagrams, 8, 1, 64) as u8;
        let depth = range("depth", table.depth, 4096, 64, 65_535);
        let banners = range("banners", table.banners, 512, 1, u16::MAX.into()) as u16;
        if !problems.is_empty() {
            return Err(problems);
        }
        let plain = PLAIN.into_iter().chain(also.iter()).collect::<Apps>().without(fine);
        let rules = Rules {
            deny,
            allow,
            deny_unknown: table.unknown.map_or(allow.is_some(), |unknown| unknown == Passes::Deny),
            plaintext: table.plaintext,
            plain: if table.plaintext == Plaintext::Off { Apps::default() } else { plain },
        };
        Ok(Settings {
            rules: Arc::new(rules),
            drops: table.action == Action::Drop,
            datagrams,
            depth,
            banners,
        })
    }
}
