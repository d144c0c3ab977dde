//! The captures that all programs read, as a load balancer sends them: each frame another flow, UDP over IPv4; or whole connections that speak
//! something, made up (`connections.rs`) or real (`captures.rs`).

use std::path::{Path, PathBuf};

use sluicegate::traffic::{Mix, Sizes, pcap};

use crate::{captures, connections};

/// Outer source of the frames, as `tunnel.allowed_sources` wants it.
pub const NODES: &str = "10.254.11.0/24";
/// First two bytes of the inner clients.
pub const CLIENTS: [u8; 2] = [10, 0];
/// First two bytes of the inner servers.
pub const SERVERS: [u8; 2] = [172, 16];
/// Ports of services that the traffic does not use.
pub const OTHER_PORTS: [u16; 12] = [21, 22, 25, 53, 80, 110, 143, 389, 993, 1433, 3306, 5432];

/// One capture.
#[derive(Clone, Copy, Debug)]
pub struct Capture {
    /// In tables.
    pub name: &'static str,
    /// Frames and flows.
    pub frames: u32,
    /// What runs on it.
    pub rows: Rows,
    sizes: Sizes,
}

/// Programs that are compared on a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All that look at packets.
    Packets,
    /// What is compared at this size: memory for more programs is not asked for.
    Few,
    /// Those that read what connections carry.
    Connections,
    /// Those that read what is in real captures.
    Captures,
}

/// Sizes are those of the inner IP packet. IMIX: seven of 64, four of 512, one of 1400.
pub const CAPTURES: [Capture; 8] = [
    Capture { name: "64 B, 1k frames", frames: 1 << 10, rows: Rows::Packets, sizes: Sizes::Fixed(64) },
    Capture { name: "64 B, 64k frames", frames: 1 << 16, rows: Rows::Packets, sizes: Sizes::Fixed(64) },
    Capture { name: "64 B, 1M frames", frames: 1 << 20, rows: Rows::Few, sizes: Sizes::Fixed(64) },
    Capture { name: "IMIX, 1k frames", frames: 1 << 10, rows: Rows::Packets, sizes: Sizes::Imix },
    Capture { name: "IMIX, 64k frames", frames: 1 << 16, rows: Rows::Packets, sizes: Sizes::Imix },
    Capture { name: "1400 B, 1k frames", frames: 1 << 10, rows: Rows::Packets, sizes: Sizes::Fixed(1400) },
    Capture { name: "1400 B, 64k frames", frames: 1 << 16, rows: Rows::Packets, sizes: Sizes::Fixed(1400) },
    Capture {
        name: connections::NAME,
        frames: connections::FRAMES,
        rows: Rows::Connections,
        sizes: Sizes::Imix,
    },
];

impl Capture {
    /// So many frames out of real captures.
    pub fn real(frames: u32) -> Capture {
        Capture { name: captures::NAME, frames, rows: Rows::Captures, sizes: Sizes::Imix }
    }

    /// Writes it into the folder.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, String> {
        let name: String = self.name.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = folder.join(name + ".pcap");
        if self.rows == Rows::Connections {
            connections::write(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            return Ok(path);
        }
        pcap::write(&path, &Mix::bench(self.frames, self.sizes), u64::from(self.frames))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }
}
