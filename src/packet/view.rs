//! One packet to look at.

use std::net::{IpAddr, SocketAddr};

use super::{FlowFlags, InnerFlags, Meta};

/// One packet, to look at only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    frame: &'a [u8],
    meta: &'a Meta,
}

impl<'a> View<'a> {
    #[inline(always)]
    pub(crate) fn new(frame: &'a [u8], meta: &'a Meta) -> Self {
        View { frame, meta }
    }

    /// What is known of it.
    #[inline(always)]
    pub fn meta(&self) -> &'a Meta {
        self.meta
    }

    /// The inner packet, as long as its IP header says.
    #[inline(always)]
    pub fn inner(&self) -> &'a [u8] {
        let start = self.meta.inner as usize;
        self.frame.get(start..start + self.meta.inner_len as usize).unwrap_or(&[])
    }

    /// The inner transport header and what follows it; empty in a later fragment.
    #[inline(always)]
    pub fn transport(&self) -> &'a [u8] {
        let start = self.meta.transport as usize;
        self.frame.get(start..start + self.meta.transport_len as usize).unwrap_or(&[])
    }

    /// Inner source address.
    pub fn source(&self) -> IpAddr {
        self.address(12, 8)
    }

    /// Inner destination address.
    pub fn destination(&self) -> IpAddr {
        self.address(16, 24)
    }

    /// Address and port of who opened the flow; of the sender, for a packet without a flow and for an ICMP error. The port is 0 where
    /// the packet shows none.
    pub fn originator(&self) -> SocketAddr {
        self.end(self.opener_receives())
    }

    /// Address and port of the other end than [`Self::originator`].
    pub fn responder(&self) -> SocketAddr {
        self.end(!self.opener_receives())
    }

    fn opener_receives(&self) -> bool {
        self.meta.is_reply() && !self.meta.flow_flags.has(FlowFlags::RELATED)
    }

    fn end(&self, receiving: bool) -> SocketAddr {
        let ports = match self.meta.flags.has(InnerFlags::PORTS) {
            true => (self.meta.source_port, self.meta.destination_port),
            false => (0, 0),
        };
        match receiving {
            true => SocketAddr::new(self.destination(), ports.1),
            false => SocketAddr::new(self.source(), ports.0),
        }
    }

    fn address(&self, v4: usize, v6: usize) -> IpAddr {
        let inner = self.inner();
        if self.meta.is_ipv6() {
            IpAddr::from(inner.get(v6..).and_then(|b| b.first_chunk::<16>()).copied().unwrap_or_default())
        } else {
            IpAddr::from(inner.get(v4..).and_then(|b| b.first_chunk::<4>()).copied().unwrap_or_default())
        }
    }
}
