//! What a checker promises for any frames, as code; compiled for tests and fuzzing only.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::arp::{Arp, BROADCAST, Mac};
use super::{Checked, Checker, HealthCheck, Protocol, STARTS, Stand};
use crate::gateway::targets::TargetId;
use crate::mgmt::Device;

const OURS: Mac = [2, 0, 0, 0, 0, 1];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The first has a MAC address that is configured, the second is asked for, the third is behind a router.
const TARGETS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 11), Ipv4Addr::new(192, 0, 2, 9)];
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const FIXED: Mac = [2, 0, 0, 0, 0, 10];

/// One case of the fuzz target `checks_frames` and of the property test: frames in, as they come or as a target would send them that says
/// what the bytes say. Nothing panics, every check is over in its time, what is open is bounded, a configured MAC address stays, and nothing goes
/// anywhere but to who was asked. The first byte chooses the protocol; then come records: what to do, a length, so many bytes.
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken promise must panic")]
pub fn frames(bytes: &[u8]) {
    let Some((choice, mut bytes)) = bytes.split_first() else { return };
    let protocol = [Protocol::Tcp, Protocol::Http, Protocol::Https][usize::from(*choice) % 3];
    let settings = HealthCheck { protocol, ..HealthCheck::default() };
    let stand = Stand { mac: OURS, net: "10.0.0.1/24".parse().unwrap(), router: Some(ROUTER), mtu: 1500 };
    let mut checker = Checker::new(settings.clone(), stand, 7);
    let mut device = Device::new(1500);
    let mut now = Duration::from_secs(1);
    let targets = TARGETS.iter().zip(0..);
    let targets = targets.map(|(address, n)| Checked {
        id: TargetId(n),
        address: *address,
        mac: (n == 0).then_some(FIXED),
    });
    checker.set_targets(targets.collect(), now);
    let mut last: Option<Sent> = None;
    while let Some(([what, len], rest)) = bytes.split_first_chunk::<2>() {
        let (body, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        bytes = rest;
        let frame = match what % 5 {
            0 => Some(body.to_vec()),
            1 => Some(reply(TARGETS[1], body)),
            2 => Some(reply(ROUTER, body)),
            3 => last.as_ref().map(|sent| sent.answer(body)),
            _ => None,
        };
        now += Duration::from_millis(u64::from(what / 5) * 20);
        frame.into_iter().for_each(|mut frame| device.put(&mut frame));
        checker.poll(now, &mut device);
        device.drain(|frame| {
            let to: Mac = *frame.first_chunk().unwrap();
            assert!(frame[6..12] == OURS && (to == BROADCAST || to[0] & 1 == 0), "{frame:02x?}");
            last = Sent::read(frame).or(last.take());
        });
        let snapshot = checker.snapshot(now);
        assert!(snapshot.connections <= TARGETS.len().min(STARTS));
        assert!(checker.sockets.iter().count() <= TARGETS.len());
        assert_eq!(snapshot.targets[0].mac.as_deref(), Some("02:00:00:00:00:0a"));
        assert!(checker.wake() >= now);
    }
    // Whatever was said: within an interval everybody is checked again, and that is over in its time.
    let before: Vec<u64> = checker.snapshot(now).targets.iter().map(|target| target.checks).collect();
    let end = now + settings.interval + settings.timeout * 2;
    while now < end {
        now = checker.wake().clamp(now + Duration::from_millis(1), end);
        checker.poll(now, &mut device);
        device.drain(|_| {});
    }
    let after = checker.snapshot(now).targets;
    assert!(after.iter().zip(before).all(|(after, before)| after.checks > before), "{after:?}");
}

/// "This address is mine", to us, from some MAC address.
fn reply(sender: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let last = body.first().copied().unwrap_or(1);
    let arp = Arp {
        asks: body.len() > 1 && body[1] & 1 == 1,
        sender_mac: [2, 0, 0, 0, 1, last],
        sender,
        target_mac: OURS,
        target: OWN,
    };
    arp.frame(OURS)
}

/// A segment that the checker sent.
#[derive(Debug)]
struct Sent {
    from: u16,
    to: (Ipv4Addr, u16),
    next: TcpSeqNumber,
    seen: Option<TcpSeqNumber>,
}

impl Sent {
    fn read(frame: &[u8]) -> Option<Sent> {
        let ip = Ipv4Packet::new_checked(frame.get(14..).filter(|_| frame[12..14] == [8, 0])?).ok()?;
        let tcp =
            TcpPacket::new_checked(ip.payload()).ok().filter(|_| ip.next_header() == IpProtocol::Tcp)?;
        Some(Sent {
            from: tcp.src_port(),
            to: (ip.dst_addr(), tcp.dst_port()),
            next: tcp.seq_number() + tcp.segment_len(),
            seen: tcp.ack().then(|| tcp.ack_number()),
        })
    }

    /// What follows it from the other side: a SYN-ACK, or data, as the first byte says.
    fn answer(&self, body: &[u8]) -> Vec<u8> {
        let (flags, payload) = body.split_first().unwrap_or((&0, &[]));
        let control = match (self.seen, flags % 8) {
            (None, 0..6) => TcpControl::Syn,
            (_, 7) => TcpControl::Rst,
            (_, 6) => TcpControl::Fin,
            (_, 5) => TcpControl::Psh,
            _ => TcpControl::None,
        };
        let tcp = TcpRepr {
            src_port: self.to.1,
            dst_port: self.from,
            control,
            seq_number: self.seen.unwrap_or(TcpSeqNumber(1000)),
            ack_number: Some(self.next),
            window_len: u16::from(*flags) * 64,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: if control == TcpControl::Syn { &[] } else { payload },
        };
        let ip = Ipv4Repr {
            src_addr: self.to.0,
            dst_addr: OWN,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let sums = ChecksumCapabilities::default();
        let mut frame = vec![0; 14 + ip.buffer_len() + tcp.buffer_len()];
        frame[..14].copy_from_slice(&[&OURS[..], &FIXED, &[8, 0]].concat());
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &sums);
        tcp.emit(&mut TcpPacket::new_unchecked(&mut frame[34..]), &self.to.0.into(), &OWN.into(), &sums);
        frame
    }
}
