//! Who hears of what is found out: a test, or the event log.

use super::event;
use crate::event::{Alert, Type};
use crate::packet::{App, Spoken, View};
use crate::stage::Cx;

/// Who hears of what is found out.
pub trait Tell: Send {
    /// What a flow speaks, and again when it has changed over.
    fn spoken(&mut self, _spoken: Spoken, _packet: &View<'_>, _cx: &mut Cx<'_>) {}

    /// It is in the clear.
    fn plaintext(&mut self, _app: App, _blocked: bool, _packet: &View<'_>, _cx: &mut Cx<'_>) {}

    /// Lines of both ends of an SSH connection: the originator's and the responder's, as far as they were seen.
    fn ssh(&mut self, _lines: [Option<&[u8]>; 2], _packet: &View<'_>, _cx: &mut Cx<'_>) {}
}

/// Tells by events.
#[derive(Clone, Copy, Debug)]
pub struct Records;

impl Tell for Records {
    fn plaintext(&mut self, app: App, blocked: bool, packet: &View<'_>, cx: &mut Cx<'_>) {
        cx.emit(packet.meta(), packet.inner(), Alert { rule: app as u32, blocked });
    }

    fn ssh(&mut self, lines: [Option<&[u8]>; 2], packet: &View<'_>, cx: &mut Cx<'_>) {
        if cx.wants(Type::Ssh) && lines.iter().any(Option::is_some) {
            cx.emit(packet.meta(), packet.inner(), Box::new(event::ssh(lines)));
        }
    }
}
