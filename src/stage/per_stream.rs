//! Streams piece by piece: what authors of stages write that read TCP.

use super::{Cx, Stage};
use crate::config::OnError;
use crate::packet::{Batch, DropReason, Verdict, View};
use crate::stream::{End, PieceKind, Spot};
use crate::wire::tcp::Tcp;
use crate::wire::transport;

/// The bytes of each direction of a TCP connection, in order, each once, and the verdict on the packet that brought the last of them.
/// [`PerStream`] makes a [`Stage`] of it.
///
/// - The framework puts bytes in order once for all stages of a worker; each is shown every piece until it settles the flow.
/// - [`Verdict::Hold`] keeps the packet that brought the piece until the stage says something else of a later piece of that direction. One
///   frame of a direction waits at most, the first: those behind it pass, since their receiver can do nothing with them before it
///   comes. What is sent again of it is dropped (`held_again`). A drop drops what waits as well; anything else lets it go first.
/// - Whatever cannot be read goes by the `on_unread` of the stage's table: "drop" drops, so that a gap ends a flow, and what only lacks a place
///   now is sent again; "pass" lets it through, and the stage hears of gaps.
/// - When both directions have ended, or `stream.depth_kb` of them was shown, the framework settles the flow for the stage.
pub trait StreamInspect: Send {
    /// The next bytes of a direction, at least one.
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict;

    /// Bytes that nobody has seen; the next ones follow behind them. Unless written otherwise the stage is done with the flow.
    fn gap(&mut self, _len: u32, _spot: &Spot, _packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        cx.settle();
        Verdict::Next
    }

    /// No more comes of a direction.
    fn end(&mut self, _why: End, _spot: &Spot, _packet: &View<'_>, _cx: &mut Cx<'_>) -> Verdict {
        Verdict::Next
    }

    /// A packet that is not TCP.
    fn other(&mut self, _packet: &View<'_>, _cx: &mut Cx<'_>) -> Verdict {
        Verdict::Next
    }

    /// See [`Stage::idle`].
    fn idle(&mut self, _cx: &mut Cx<'_>) {}

    /// See [`Stage::stop`].
    fn stop(&mut self, _cx: &mut Cx<'_>) {}
}

/// Runs a [`StreamInspect`] over the streams of every open packet of the batch.
#[derive(Debug)]
pub struct PerStream<I>(pub I);

impl<I: StreamInspect> Stage for PerStream<I> {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        for slot in batch.open() {
            let packet = batch.view(slot);
            let verdict = match packet.meta().protocol {
                transport::TCP => self.read(slot, &packet, cx),
                _ => self.0.other(&packet, cx),
            };
            batch.decide(slot, verdict);
            if std::mem::take(&mut cx.settling) {
                batch.settle(slot);
            }
            if let Some(spoken) = cx.spoken.take() {
                batch.name(slot, spoken);
            }
        }
    }

    fn idle(&mut self, cx: &mut Cx<'_>) {
        self.0.idle(cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.0.stop(cx);
    }
}

impl<I: StreamInspect> PerStream<I> {
    fn read(&mut self, slot: usize, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        let unread = Verdict::Drop(DropReason::StreamUnread.into());
        let Some(streams) = cx.streams else { return Verdict::Next };
        let closed = cx.on_unread == OnError::Drop;
        if closed && streams.is_unread(slot) {
            return unread;
        }
        if !streams.has_pieces(slot) {
            return Verdict::Next;
        }
        let payload = Tcp::new_checked(packet.transport()).map_or(&[][..], |tcp| tcp.payload());
        let mut own = Verdict::Next;
        for piece in streams.pieces(slot, payload) {
            let verdict = match piece.what {
                PieceKind::Data(bytes) => self.0.data(bytes, &piece.spot, packet, cx),
                PieceKind::Gap(_) if closed => {
                    cx.settle();
                    unread
                }
                PieceKind::Gap(len) => self.0.gap(len, &piece.spot, packet, cx),
                PieceKind::End(why) => self.0.end(why, &piece.spot, packet, cx),
            };
            if cx.settling || !matches!(verdict, Verdict::Next | Verdict::Hold) {
                return verdict;
            }
            if piece.spot.reply == packet.meta().is_reply() {
                own = verdict;
            }
        }
        own
    }
}
