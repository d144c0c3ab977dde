//! What may be spoken, and what may be said in the clear.

use crate::packet::{App, Apps};

/// Why a flow may not go on. In the order of the kind's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is denied.
    Denied,
    /// It is not among those that are allowed.
    NotAllowed,
    /// Nobody knows what it is.
    Unknown,
    /// It is not encrypted.
    Plaintext,
}

/// What becomes of what is not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plaintext {
    /// Nothing.
    #[default]
    Off,
    /// It is told.
    Report,
    /// It is told, and may not go on.
    Deny,
}

/// Protocols whose content is not encrypted, unless they change over to TLS, and could be: others carry names, addresses and the time, which
/// everybody on the way has to know or may.
pub const PLAIN: [App; 35] = [
    App::Http,
    App::Http2,
    App::Ftp,
    App::Smtp,
    App::Pop3,
    App::Imap,
    App::Telnet,
    App::Ldap,
    App::Mysql,
    App::Pgsql,
    App::Redis,
    App::Mongodb,
    App::Mqtt,
    App::Sip,
    App::Snmp,
    App::Syslog,
    App::Memcached,
    App::Cassandra,
    App::Elasticsearch,
    App::Nfs,
    App::Rpc,
    App::Dcerpc,
    App::Dnp3,
    App::Modbus,
    App::Enip,
    App::Cotp,
    App::Rfb,
    App::Nntp,
    App::Irc,
    App::Jabber,
    App::Rtsp,
    App::Rtp,
    App::Amqp,
    App::Rsync,
    App::Tftp,
];

/// What a plan says.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub deny: Apps,
    /// Nothing else may be spoken, if it is there.
    pub allow: Option<Apps>,
    pub deny_unknown: bool,
    pub plaintext: Plaintext,
    /// What counts as plaintext; empty if nobody asks.
    pub plain: Apps,
}

impl Rules {
    /// May it be spoken?
    pub fn of(&self, app: App) -> Option<Why> {
        if self.deny.has(app) {
            return Some(Why::Denied);
        }
        self.allow.is_some_and(|allow| !allow.has(app)).then_some(Why::NotAllowed)
    }

    /// Can anything be denied?
    pub fn can_deny(&self) -> bool {
        !self.deny.is_empty()
            || self.allow.is_some()
            || self.deny_unknown
            || self.plaintext == Plaintext::Deny
    }
}
