//! The host stack on the ports: what a kernel would answer, if there were one behind them.
//!
//! Copies of punted frames come from the workers by rings, replies go back the same way ([`HostEnd`]). For each port a smoltcp interface
//! answers ARP, neighbour discovery and echo, asks for its address where the plan says "dhcp", and has the connections of
//! health checks. One round is bounded work, and nothing here waits.
//!
//! A reply leaves by the worker that had the port's last frame, if its ring has room, else by any other with a queue on the port: a worker that
//! hangs passes on nothing, so it is not the one for long.

mod checks;
pub(crate) mod device;
mod neighbour;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};

pub use checks::CheckCounts;
use checks::Checks;
use device::Device;

use super::health::Status;
use super::http;
use crate::config::{AddressV4, HealthPlan, PortAddress};
use crate::dpdk::PortFacts;
use crate::path::{Guests, HostEnd};

/// Frames that one round takes from each worker.
const ROUND: usize = 64;
/// Frames that one port takes in before it sends what they ask for.
const AT_ONCE: usize = 16;

/// What the host stack counts. Plain numbers: one thread has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// Frames that came from the workers.
    pub received: u64,
    /// Frames that the workers were given to send.
    pub sent: u64,
    /// Frames for which no worker's ring had room.
    pub no_room: u64,
    /// Connections and their requests.
    pub checks: CheckCounts,
}

/// The rings to and from all workers.
#[derive(Debug)]
pub(crate) struct Rings {
    ends: Vec<HostEnd>,
    frame: Vec<u8>,
    pub received: u64,
    pub sent: u64,
    pub no_room: u64,
}

impl Rings {
    pub fn new(ends: Vec<HostEnd>) -> Self {
        Rings { ends, frame: Vec::with_capacity(usize::from(u16::MAX)), received: 0, sent: 0, no_room: 0 }
    }

    /// Takes a bounded number of frames; `each` gets the port, the frame and the number of the ring. True if there were any.
    pub fn take(&mut self, mut each: impl FnMut(u16, &mut Vec<u8>, usize)) -> bool {
        let before = self.received;
        for (n, end) in self.ends.iter_mut().enumerate() {
            for _ in 0..ROUND {
                let Some((port, len)) = end.punted.peek() else { break };
                self.frame.resize(len, 0);
                if end.punted.take(&mut self.frame) {
                    self.received += 1;
                    each(port, &mut self.frame, n);
                }
            }
        }
        self.received > before
    }

    /// Gives a frame to the ring of this number, or to any other that leads to the port.
    pub fn give(&mut self, port: u16, via: usize, frame: &[u8]) {
        let first = self.ends.get_mut(via).filter(|end| end.ports.contains(&port));
        let given = first.is_some_and(|end| end.replies.write(port, frame))
            || self
                .ends
                .iter_mut()
                .filter(|end| end.ports.contains(&port))
                .any(|end| end.replies.write(port, frame));
        match given {
            true => self.sent += 1,
            false => self.no_room += 1,
        }
    }
}

/// The stack.
#[derive(Debug)]
pub struct Host {
    rings: Rings,
    guests: Guests,
    ports: Vec<HostPort>,
}

/// One port's interface.
struct HostPort {
    id: u16,
    iface: Interface,
    device: Device,
    sockets: SocketSet<'static>,
    gateway: Option<Ipv4Addr>,
    dhcp: Option<SocketHandle>,
    checks: Checks,
    /// Frames that came in since anything was last sent.
    unsent: usize,
    /// The ring that the last frame came by.
    via: usize,
    /// What DHCP said last, once.
    lease: Option<String>,
}

impl std::fmt::Debug for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostPort({}, {:?})", self.id, self.iface.ip_addrs())
    }
}

impl Host {
    /// A stack for these ports: facts and addresses of each.
    pub(super) fn new(
        ends: Vec<HostEnd>,
        guests: Guests,
        ports: &[(&PortFacts, PortAddress)],
        health: &HealthPlan,
    ) -> Self {
        let ports = ports.iter().map(|(facts, address)| HostPort::new(facts, address, health)).collect();
        Host { rings: Rings::new(ends), guests, ports }
    }

    /// One round at this time: frames in, connections served, frames out. `listen`: new connections are taken. True if there was
    /// anything to do.
    pub(super) fn poll(&mut self, at: std::time::Duration, status: &Status, listen: bool) -> bool {
        let now = Instant::from_micros(i64::try_from(at.as_micros()).unwrap_or(i64::MAX));
        let Host { rings, guests, ports } = self;
        let busy = rings.take(|id, frame, via| {
            if let Some(port) = ports.iter_mut().find(|port| port.id == id) {
                port.via = via;
                port.take(now, frame, listen);
            }
        });
        for port in ports {
            port.serve(now, at, status, listen, guests);
            port.device.drain(|frame| rings.give(port.id, port.via, frame));
        }
        busy
    }

    /// What it has counted.
    pub fn counts(&self) -> HostCounts {
        let Rings { received, sent, no_room, .. } = self.rings;
        let checks =
            self.ports.iter().fold(CheckCounts::default(), |sum, port| sum.plus(&port.checks.counts));
        HostCounts { received, sent, no_room, checks }
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.ports.iter().map(|port| port.checks.open(&port.sockets)).sum()
    }

    /// What DHCP has said since the last call, one sentence each.
    pub(super) fn said(&mut self) -> impl Iterator<Item = String> + '_ {
        self.ports.iter_mut().filter_map(|port| port.lease.take())
    }

    /// Addresses of the ports now.
    pub fn addresses(&self) -> Vec<(u16, Vec<String>)> {
        let of = |port: &HostPort| port.iface.ip_addrs().iter().map(ToString::to_string).collect();
        self.ports.iter().map(|port| (port.id, of(port))).collect()
    }
}

impl HostPort {
    fn new(facts: &PortFacts, address: &PortAddress, health: &HealthPlan) -> Self {
        let mut device = Device::new(facts.mtu);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(facts.mac)));
        // Sequence numbers and DHCP's transaction ids come from it.
        config.random_seed = rand::random();
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let v6 = address.v6.map(|net| Ipv6Cidr::new(net.addr(), net.prefix_len()));
        let link = Ipv6Cidr::new(link_local(facts.mac), 64);
        iface.update_ip_addrs(|own| {
            // There is room for four.
            if let Some(AddressV4::Static(net)) = address.v4 {
                let _ = own.push(IpCidr::Ipv4(Ipv4Cidr::new(net.addr(), net.prefix_len())));
            }
            let _ = v6.map(|net| own.push(IpCidr::Ipv6(net)));
            let _ = own.push(IpCidr::Ipv6(link));
        });
        if let Some(gateway) = address.gateway {
            let _ = iface.routes_mut().add_default_ipv4_route(gateway);
        }
        let dhcp = (address.v4 == Some(AddressV4::Dhcp)).then(|| sockets.add(dhcpv4::Socket::new()));
        let checks = Checks::new(&mut sockets, health.port);
        HostPort {
            id: facts.id,
            iface,
            device,
            sockets,
            gateway: address.gateway,
            dhcp,
            checks,
            unsent: 0,
            via: 0,
            lease: None,
        }
    }

    /// One frame comes in.
    fn take(&mut self, now: Instant, frame: &mut Vec<u8>, listen: bool) {
        self.checks.make_room(now, &mut self.sockets, listen);
        if let Some(arp) = neighbour::arp(frame, self.iface.ip_addrs(), self.gateway) {
            self.device.put(&mut arp.to_vec());
            self.iface.poll_ingress_single(now, &mut self.device, &mut self.sockets);
        }
        self.device.put(frame);
        let done = self.iface.poll_ingress_single(now, &mut self.device, &mut self.sockets);
        if done == PollIngressSingleResult::SocketStateChanged {
            self.checks.note(now, &self.sockets);
        }
        // An answer to a handshake must be on its way before its socket can be needed for another.
        self.unsent += 1;
        if self.unsent >= AT_ONCE {
            self.unsent = 0;
            self.iface.poll_egress(now, &mut self.device, &mut self.sockets);
        }
    }

    fn serve(
        &mut self,
        now: Instant,
        at: std::time::Duration,
        status: &Status,
        listen: bool,
        guests: &Guests,
    ) {
        self.lease(guests);
        self.checks.serve(now, &mut self.sockets, listen, |exchange: &mut http::Exchange, bytes| {
            exchange.take(bytes, status, at);
        });
        self.iface.poll_maintenance(now);
        self.iface.poll_egress(now, &mut self.device, &mut self.sockets);
    }

    /// Takes the address that DHCP gave, or gives it back.
    fn lease(&mut self, guests: &Guests) {
        let Some(handle) = self.dhcp else { return };
        let (net, router) = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            None => return,
            Some(dhcpv4::Event::Configured(config)) => (Some(config.address), config.router),
            Some(dhcpv4::Event::Deconfigured) => (None, None),
        };
        self.iface.update_ip_addrs(|own| {
            own.retain(|cidr| !matches!(cidr.address(), IpAddress::Ipv4(_)));
            let _ = net.map(|net| own.push(IpCidr::Ipv4(net)));
        });
        self.gateway = router;
        self.iface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = router {
            let _ = self.iface.routes_mut().add_default_ipv4_route(router);
        }
        let subnet = net.and_then(|net| Ipv4Net::new(net.address(), net.prefix_len()).ok());
        guests.learn(self.id, subnet);
        self.lease = Some(match (net, router) {
            (Some(net), Some(router)) => {
                format!("port {}: address {net}, gateway {router}, by DHCP", self.id)
            }
            (Some(net), None) => format!("port {}: address {net} by DHCP, no gateway", self.id),
            (None, _) => format!("port {}: no address; asking for one by DHCP", self.id),
        });
    }
}

/// The link-local address of a MAC address (RFC 4291 appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests;
