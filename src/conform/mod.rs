//! A judge of any GENEVE appliance behind a gateway load balancer: it plays the load balancer, and says what comes back wrong.
//!
//! ```text
//! checks --packets--> Session --> Wire ==> the appliance ==> Wire --> Session --decoded--> checks --> Report
//! ```
//!
//! [`checks`] is the list of what is demanded, each with its source; [`judge`] runs them over a [`Wire`] and makes a [`Report`]. Packets are
//! made and read by [`frames`], which shares nothing with the data plane, so that an error there cannot hide here. The judge runs one exchange at a
//! time and waits: nothing here is a packet path, except that throughput is measured as far as one thread can send.

pub mod frames;
pub mod profile;
pub mod wire;
mod session;
pub mod checks;
mod judge;
pub mod report;

use std::time::Duration;

use ipnet::Ipv4Net;

pub use checks::{Check, Level};
pub use judge::{Watch, judge};
pub use profile::Profile;
pub use report::{Found, Report, Verdict};
pub use session::{Outcome, Session, Stop};
pub use wire::Wire;

/// What is judged, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The load balancer that is played.
    pub profile: &'static Profile,
    /// Outer UDP destination port.
    pub port: u16,
    /// How long an answer may take.
    pub wait: Duration,
    /// How long something that must not come back is waited for, once what was sent behind it is back.
    pub quiet: Duration,
    /// How often a check is run at most, if it fails for silence: a packet may be lost on the way.
    pub attempts: u32,
    /// Addresses, ports, cookies and numbers come from it.
    pub seed: u64,
    /// Inner addresses of clients. IPv6 clients are in fd00:201::/64.
    pub clients: Ipv4Net,
    /// Inner addresses of servers. IPv6 servers are in fd00:202::/64.
    pub servers: Ipv4Net,
    /// Port of inner TCP, which carries HTTP.
    pub tcp_port: u16,
    /// Port of inner DNS queries over UDP.
    pub dns_port: u16,
    /// Port of inner UDP that is long, in fragments, or many.
    pub data_port: u16,
    /// How health is asked for; `None`: not at all.
    pub health: Option<Health>,
    /// How long throughput is measured.
    pub throughput: Duration,
    /// Kpps below which that is a failure.
    pub min_kpps: Option<f64>,
}

/// How health is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// TCP port.
    pub port: u16,
    /// Path of the GET; `None`: connections only.
    pub path: Option<String>,
}

impl Default for Settings {
    /// AWS's defaults, where it has some: health over TCP port 80.
    fn default() -> Self {
        Settings {
            profile: &profile::AWS,
            port: 6081,
            wait: Duration::from_secs(2),
            quiet: Duration::from_millis(100),
            attempts: 2,
            seed: 1,
            clients: Ipv4Net::new_assert([10, 201, 0, 0].into(), 16),
            servers: Ipv4Net::new_assert([10, 202, 0, 0].into(), 16),
            tcp_port: 80,
            dns_port: 53,
            data_port: 5001,
            health: Some(Health { port: 80, path: Some("/".into()) }),
            throughput: Duration::from_secs(3),
            min_kpps: None,
        }
    }
}

#[cfg(test)]
mod tests;
