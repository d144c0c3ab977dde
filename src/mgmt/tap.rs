//! The kernel as the host stack: each port gets a TAP interface with its MAC address and MTU, and punted frames go there.
//!
//! Whatever the kernel sends on the interface leaves by the port. Nothing here waits: the descriptors are non-blocking, and a full queue of
//! the kernel loses the frame, as a full queue of a card would.

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::host::Rings;
use crate::dpdk::{Error, PortFacts};
use crate::path::HostEnd;

/// Frames that one round takes from each interface.
const ROUND: usize = 64;
/// Longest frame: the largest MTU with its Ethernet header and a tag.
const LONGEST: usize = 65_536;

/// The interfaces.
pub struct Taps {
    rings: Rings,
    ports: Vec<Tap>,
    frame: Vec<u8>,
    /// Frames that the kernel did not take.
    refused: u64,
}

struct Tap {
    id: u16,
    device: SyncDevice,
    via: usize,
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Taps({})", self.ports.len())
    }
}

impl Taps {
    /// An interface for each port: `name` and the port's place. They go away with the process.
    pub(super) fn new(ends: Vec<HostEnd>, name: &str, ports: &[&PortFacts]) -> Result<Self, Error> {
        let open = |(n, facts): (usize, &&PortFacts)| {
            let name = format!("{name}{n}");
            let refused = |error: std::io::Error| {
                Error::refused(
                    format!("management.host = \"tap\": {name}: {error}"),
                    "it needs /dev/net/tun and CAP_NET_ADMIN, and a name that is free (management.tap_name)",
                )
            };
            let device = DeviceBuilder::new()
                .name(&name)
                .layer(Layer::L2)
                .mac_addr(facts.mac)
                .mtu(facts.mtu)
                .build_sync()
                .map_err(refused)?;
            device.set_nonblocking(true).map_err(refused)?;
            Ok(Tap { id: facts.id, device, via: 0 })
        };
        let ports = ports.iter().enumerate().map(open).collect::<Result<_, Error>>()?;
        Ok(Taps { rings: Rings::new(ends), ports, frame: vec![0; LONGEST], refused: 0 })
    }

    /// One round: punted frames to the kernel, its frames to the workers. True if there were any.
    pub(super) fn poll(&mut self) -> bool {
        let Taps { rings, ports, frame, refused } = self;
        let mut busy = rings.take(|id, bytes, via| {
            if let Some(port) = ports.iter_mut().find(|port| port.id == id) {
                port.via = via;
                *refused += u64::from(port.device.send(bytes).is_err());
            }
        });
        for port in ports {
            for _ in 0..ROUND {
                let Ok(len) = port.device.recv(frame) else { break };
                let Some(bytes) = frame.get(..len) else { break };
                rings.give(port.id, port.via, bytes);
                busy = true;
            }
        }
        busy
    }

    /// Frames from and to the workers; those for which there was no room, on either side.
    pub(super) fn counts(&self) -> super::HostCounts {
        let Rings { received, sent, no_room, .. } = self.rings;
        super::HostCounts { received, sent, no_room: no_room + self.refused, ..super::HostCounts::default() }
    }
}
