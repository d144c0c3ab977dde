//! All protocols that are recognised, and by what: one line for each. What is spoken most comes first; where bytes fit several, the first one counts.

use super::fit::Fit;
use super::{data, mail, media, names, plant, remote, secure, web};
use crate::packet::App;

/// Looks at the first bytes of a direction, or at a datagram.
pub type Look = fn(&[u8]) -> Fit;

/// A protocol over TCP.
#[derive(Debug)]
pub struct Stream {
    /// Which.
    pub app: App,
    /// The first bytes of who opened the connection.
    pub client: Look,
    /// Of the other one.
    pub server: Look,
    /// Where its servers usually are: the last resort, where one side alone was heard and what it said fits several protocols.
    pub ports: &'static [u16],
}

const fn stream(app: App, client: Look, server: Look, ports: &'static [u16]) -> Stream {
    Stream { app, client, server, ports }
}

/// Over TCP.
pub const STREAMS: &[Stream] = &[
    stream(App::Tls, secure::tls_client, secure::tls_server, &[443]),
    stream(App::Http, web::http_client, web::http_server, &[80, 8080]),
    stream(App::Http2, web::http2_client, web::http2_server, &[]),
    stream(App::Ssh, remote::ssh, remote::ssh, &[22]),
    stream(App::Dns, names::dns_stream, names::dns_stream, &[53]),
    stream(App::Smtp, mail::smtp_client, mail::smtp_server, &[25, 587, 2525]),
    stream(App::Imap, mail::imap_client, mail::imap_server, &[143]),
    stream(App::Pop3, mail::pop3_client, mail::pop3_server, &[110]),
    stream(App::Ftp, mail::ftp_client, mail::ftp_server, &[21]),
    stream(App::Pgsql, data::pgsql_client, data::pgsql_server, &[5432]),
    stream(App::Mysql, data::mysql_client, data::mysql_server, &[3306]),
    stream(App::Mssql, data::mssql_client, data::mssql_server, &[1433]),
    stream(App::Redis, data::redis_client, data::redis_server, &[6379]),
    stream(App::Mongodb, data::mongodb_client, data::mongodb, &[27017]),
    stream(App::Ldap, names::ldap, names::ldap, &[389]),
    stream(App::Krb5, names::krb5_stream, names::krb5_stream, &[88]),
    stream(App::Smb, remote::smb, remote::smb, &[445, 139]),
    stream(App::Dcerpc, remote::dcerpc, remote::dcerpc, &[135]),
    stream(App::Rdp, remote::rdp_client, remote::rdp_server, &[3389]),
    stream(App::Cotp, remote::cotp, remote::cotp, &[102]),
    stream(App::Rfb, remote::rfb, remote::rfb, &[5900]),
    stream(App::Telnet, remote::telnet, remote::telnet, &[23]),
    stream(App::Sip, web::sip, web::sip, &[5060]),
    stream(App::Rtsp, web::rtsp_client, web::rtsp_server, &[554]),
    stream(App::Mqtt, data::mqtt_client, data::mqtt_server, &[1883]),
    stream(App::Amqp, data::amqp, data::amqp, &[5672]),
    stream(App::Memcached, data::memcached_client, data::memcached_server, &[11211]),
    stream(App::Cassandra, data::cassandra_client, data::cassandra_server, &[9042]),
    stream(App::Elasticsearch, data::elasticsearch, data::elasticsearch, &[9300]),
    stream(App::Bittorrent, media::bittorrent, media::bittorrent, &[]),
    stream(App::Stun, media::stun_stream, media::stun_stream, &[3478]),
    stream(App::Nfs, remote::nfs, remote::nfs, &[2049]),
    stream(App::Rpc, remote::rpc, remote::rpc, &[111]),
    stream(App::Jabber, mail::jabber, mail::jabber, &[5222, 5269]),
    stream(App::Irc, mail::irc_client, mail::irc_server, &[6667]),
    stream(App::Nntp, mail::nntp_client, mail::nntp_server, &[119]),
    stream(App::Syslog, names::syslog, names::syslog, &[514, 601]),
    stream(App::Dnp3, plant::dnp3, plant::dnp3, &[20000]),
    stream(App::Modbus, plant::modbus, plant::modbus, &[502]),
    stream(App::Enip, plant::enip, plant::enip, &[44818]),
    stream(App::Bgp, remote::bgp, remote::bgp, &[179]),
    stream(App::Rsync, mail::rsync, mail::rsync, &[873]),
    stream(App::Git, mail::git_client, mail::git_server, &[9418]),
    stream(App::Socks, remote::socks_client, remote::socks_server, &[1080]),
];

/// What says what it is in the middle of a connection as well: for connections that nobody saw begin.
pub const MIDDLES: &[(App, Look)] = &[(App::Tls, secure::tls_record)];

/// A protocol in datagrams, either way.
#[derive(Debug)]
pub struct Datagram {
    /// Which.
    pub app: App,
    /// A datagram.
    pub look: Look,
    /// Where its servers usually are: there a datagram that fits is enough, since UDP often has only one.
    pub ports: &'static [u16],
}

const fn datagram(app: App, look: Look, ports: &'static [u16]) -> Datagram {
    Datagram { app, look, ports }
}

/// Over UDP.
pub const DATAGRAMS: &[Datagram] = &[
    datagram(App::Quic, secure::quic, &[]),
    datagram(App::Dns, names::dns_datagram, &[53, 5353, 5355]),
    datagram(App::Netbios, names::netbios, &[137]),
    datagram(App::Dtls, secure::dtls, &[]),
    datagram(App::Stun, media::stun_datagram, &[3478]),
    datagram(App::Dhcp, names::dhcp, &[67, 68]),
    datagram(App::Snmp, names::snmp, &[]),
    datagram(App::Sip, web::sip_datagram, &[]),
    datagram(App::Ssdp, web::ssdp, &[1900]),
    datagram(App::Syslog, names::syslog_datagram, &[514]),
    datagram(App::Krb5, names::krb5_datagram, &[]),
    datagram(App::Ldap, names::ldap_datagram, &[389]),
    datagram(App::BittorrentDht, media::dht, &[]),
    datagram(App::Tftp, names::tftp, &[]),
    datagram(App::Ike, secure::ike, &[]),
    datagram(App::Radius, names::radius, &[1812, 1813, 1645, 1646]),
    datagram(App::Ntp, names::ntp, &[123]),
    datagram(App::Wireguard, secure::wireguard, &[]),
    datagram(App::Nfs, remote::nfs_datagram, &[2049]),
    datagram(App::Rpc, remote::rpc_datagram, &[111]),
    datagram(App::Dcerpc, remote::dcerpc_datagram, &[]),
    datagram(App::Memcached, data::memcached_datagram, &[]),
    datagram(App::Dnp3, plant::dnp3_datagram, &[]),
    datagram(App::Enip, plant::enip_datagram, &[44818, 2222]),
    datagram(App::Rtcp, media::rtcp, &[]),
    datagram(App::Bittorrent, media::bittorrent_datagram, &[]),
    datagram(App::Rtp, media::rtp, &[]),
];

const _: () = assert!(DATAGRAMS.len() <= 32, "a flow keeps a bit for each");
