//! What a lab is made of: namespaces, pairs of interfaces, addresses, and the commands that make them.
//!
//! Pure: the commands are told, not run. A pair is made with both ends where they belong (`ip link add A netns X ... peer name B netns Y`), so the
//! namespace in which the lab is started is never touched.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Name;
use super::command::Line;

/// The interface of the client and of the server.
pub const HOST: &str = "net";
/// The gateway's legs.
pub const LEGS: [&str; 2] = ["to-client", "to-server"];
/// The gateway's end on the side of appliances.
pub const TARGETS: &str = "gw";
/// The bridge between the gateway and the appliances; between client and server, where there is no gateway.
const BRIDGE: &str = "bridge";
/// MTU there: an envelope fits around the largest packet that a load balancer takes.
pub const FABRIC_MTU: u16 = 9001;
/// Most appliances.
pub const MOST_APPLIANCES: usize = 16;

/// Addresses.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2);
/// Of the gateway, among the appliances.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// In the place of an appliance's, for its MAC address.
const GATEWAY_NUMBER: usize = 0;
/// Its subnet.
pub const FABRIC_NET: &str = "10.98.0.0/24";

/// What is between client and server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The gateway with its appliances.
    #[default]
    Gateway,
    /// A bridge of the kernel and nothing else, to see what is due to the machine.
    Wire,
}

/// The shape of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// How many appliances there are; all of them are the gateway's targets.
    pub appliances: usize,
    /// Of these, those that are not started until somebody does.
    pub absent: Vec<usize>,
    /// MTU of client and server.
    pub mtu: u16,
    /// What is between them.
    pub way: Way,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { appliances: 2, absent: Vec::new(), mtu: 1500, way: Way::Gateway }
    }
}

/// A namespace. Each process over DPDK has one of its own, as if it were a machine: `net_af_packet` names its sockets' group after process and
/// interface (`PACKET_FANOUT`), and two processes of one namespace can get the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The client.
    Client,
    /// The gateway.
    Gateway,
    /// The bridge.
    Fabric,
    /// The appliance of this number.
    Appliance(usize),
    /// The server.
    Server,
}

impl Room {
    /// All of them.
    pub fn all(shape: &Shape) -> Vec<Room> {
        let mut all = vec![Room::Client, Room::Fabric, Room::Server];
        if shape.way == Way::Gateway {
            all.push(Room::Gateway);
            all.extend((1..=shape.appliances).map(Room::Appliance));
        }
        all
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Room> {
        match name {
            "client" => Some(Room::Client),
            "gateway" => Some(Room::Gateway),
            "fabric" => Some(Room::Fabric),
            "server" => Some(Room::Server),
            _ => number(name).map(Room::Appliance),
        }
    }

    /// The name of the namespace.
    pub fn of(self, lab: &Name) -> String {
        let room = match self {
            Room::Client => "client".to_owned(),
            Room::Gateway => "gateway".to_owned(),
            Room::Fabric => "fabric".to_owned(),
            Room::Appliance(number) => appliance(number),
            Room::Server => "server".to_owned(),
        };
        format!("sluicegate-lab-{}-{room}", lab.as_str())
    }

    /// Is there a kernel that speaks for itself?
    fn is_host(self) -> bool {
        matches!(self, Room::Client | Room::Server)
    }
}

/// The name of an appliance, from 1 on.
pub fn appliance(number: usize) -> String {
    format!("app-{number}")
}

/// Its number, if that is its name.
pub fn number(name: &str) -> Option<usize> {
    let number = name.strip_prefix("app-")?.parse().ok()?;
    ((1..=MOST_APPLIANCES).contains(&number) && name == appliance(number)).then_some(number)
}

/// Its address.
pub fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, 10 + number as u8)
}

/// The MAC address of its interface (locally administered).
pub fn mac(number: usize) -> String {
    format!("02:00:62:00:00:{:02x}", 10 + number)
}

/// Its interface.
pub fn interface(number: usize) -> String {
    format!("app{number}")
}

/// Everything that is to be made once the namespaces are there.
pub fn commands(lab: &Name, shape: &Shape) -> Vec<Line> {
    let [client, fabric, server] = [Room::Client, Room::Fabric, Room::Server].map(|room| room.of(lab));
    let mut lines = Vec::new();
    for room in Room::all(shape) {
        let namespace = room.of(lab);
        // Where DPDK is, the kernel says nothing of its own.
        let off = u8::from(!room.is_host());
        for scope in ["all", "default"] {
            let mut line = Line::new(&format!("ip netns exec {namespace} sh -c"));
            line.0.push(format!("echo {off} > /proc/sys/net/ipv6/conf/{scope}/disable_ipv6"));
            lines.push(line);
        }
        lines.push(Line::new(&format!("ip -n {namespace} link set lo up")));
    }
    lines.push(Line::new(&format!(
        "ip -n {fabric} link add {BRIDGE} type bridge stp_state 0 mcast_snooping 0"
    )));
    lines.push(Line::new(&format!("ip -n {fabric} link set {BRIDGE} up")));
    let between = match shape.way {
        Way::Gateway => Room::Gateway,
        Way::Wire => Room::Fabric,
    };
    let hosts = [(&client, LEGS[0], CLIENT, CLIENT6), (&server, LEGS[1], SERVER, SERVER6)];
    for (host, leg, address, address6) in hosts {
        lines.extend(pair([host, &between.of(lab)], [HOST, leg], shape.mtu));
        // Frames that DPDK takes from the pair have to be complete: no unfinished checksums, no segments larger than the MTU.
        lines.push(Line::new(&format!("ip netns exec {host} ethtool -K {HOST} tx off")));
        lines.push(Line::new(&format!("ip -n {host} address add {address}/24 dev {HOST}")));
        lines.push(Line::new(&format!("ip -n {host} address add {address6}/64 dev {HOST} nodad")));
    }
    if shape.way == Way::Wire {
        lines.extend(LEGS.map(|leg| Line::new(&format!("ip -n {fabric} link set {leg} master {BRIDGE}"))));
        return lines;
    }
    let targets =
        (1..=shape.appliances).map(|number| (Room::Appliance(number), interface(number), mac(number)));
    for (room, end, mac) in
        std::iter::once((Room::Gateway, TARGETS.to_owned(), mac(GATEWAY_NUMBER))).chain(targets)
    {
        let (namespace, port) = (room.of(lab), format!("{end}-br"));
        lines.extend(pair([&namespace, &fabric], [&end, &port], FABRIC_MTU));
        // DPDK takes every frame that it sees, so it may only see its own. A bridge that floods and learns would give one appliance the frames of
        // another, which it answers, and from then on all of them.
        let rest = [
            format!("ip -n {namespace} link set {end} address {mac}"),
            format!("ip -n {fabric} link set {port} master {BRIDGE}"),
            format!("ip -n {fabric} link set {port} type bridge_slave learning off flood off"),
            format!("bridge -n {fabric} fdb replace {mac} dev {port} master static"),
        ];
        lines.extend(rest.map(|text| Line::new(&text)));
    }
    lines
}

/// A pair of interfaces, both up.
fn pair([one, two]: [&str; 2], [a, b]: [&str; 2], mtu: u16) -> [Line; 3] {
    [
        format!("ip link add {a} mtu {mtu} netns {one} type veth peer name {b} mtu {mtu} netns {two}"),
        format!("ip -n {one} link set {a} up"),
        format!("ip -n {two} link set {b} up"),
    ]
    .map(|text| Line::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command is about the lab's own namespaces.
    #[test]
    fn nothing_outside_of_the_namespaces_is_touched() {
        let lab = Name::new("x").unwrap();
        for way in [Way::Gateway, Way::Wire] {
            let shape = Shape { way, ..Shape::default() };
            for line in commands(&lab, &shape) {
                let words: Vec<&str> = line.0.iter().map(String::as_str).collect();
                let named = match words.as_slice() {
                    ["ip" | "bridge", "-n", namespace, ..] | ["ip", "netns", "exec", namespace, ..] => {
                        vec![*namespace]
                    }
                    ["ip", "link", "add", rest @ ..] => {
                        let places = rest.windows(2).filter(|pair| pair[0] == "netns").map(|pair| pair[1]);
                        let places: Vec<&str> = places.collect();
                        assert_eq!(places.len(), 2, "{}", line.text());
                        places
                    }
                    _ => panic!("{}", line.text()),
                };
                assert!(named.iter().all(|name| name.starts_with("sluicegate-lab-x-")), "{}", line.text());
            }
        }
    }

    /// Names of interfaces have at most fifteen letters (IFNAMSIZ).
    #[test]
    fn names_of_interfaces_fit() {
        for number in 1..=MOST_APPLIANCES {
            assert!(interface(number).len() + "-br".len() <= 15);
            assert_eq!(self::number(&appliance(number)), Some(number));
        }
        assert!(LEGS.iter().all(|leg| leg.len() <= 15));
        for wrong in ["app-0", "app-17", "app-01", "app", "app-x", "gateway"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
