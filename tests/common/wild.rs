//! A stage that does everything a stage may do, at random, and watches the framework while it does.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Deserialize;
use sluicegate::dpdk::Error;
use sluicegate::packet::{Batch, Verdict};
use sluicegate::stage::{Backend, Cx, Make, ParseResult, Parsed, Shared, Stage, StageKind};

/// What it panics with; [`quiet`] knows it.
const PANIC: &str = "a wild stage panics";

pub static WILD: StageKind = StageKind {
    name: "wild",
    summary: "does everything at random",
    help: "",
    example: "",
    reasons: &[("unlucky", "chosen at random"), ("unloved", "chosen at random, for another reason")],
    parse: |settings| -> ParseResult { Ok(Box::new(settings.read::<Wild>()?)) },
};

/// How often it does what, in percent of packets (`panic`: of batches).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wild {
    pub seed: u64,
    pub drop: u32,
    pub forward: u32,
    pub patch: u32,
    pub resize: u32,
    pub panic: u32,
}

impl Parsed for Wild {
    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(Built { settings: self.clone(), seen: Arc::default() }))
    }
}

/// What all workers' stages have seen.
#[derive(Debug, Default)]
struct Seen {
    /// Promises of the framework that did not hold.
    broken: Vec<String>,
    /// The inner packet of each packet that it passed on, as it must come home.
    inner: Vec<Vec<u8>>,
}

struct Built {
    settings: Wild,
    seen: Arc<Mutex<Seen>>,
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        let random = ChaCha8Rng::seed_from_u64(self.settings.seed ^ u64::from(make.worker.0) << 32);
        Box::new(Running { settings: self.settings.clone(), random, seen: self.seen.clone() })
    }

    fn report(&self) -> Vec<(String, String)> {
        let seen = self.seen.lock();
        let broken = seen.broken.iter().map(|text| ("broken".to_owned(), text.clone()));
        broken.chain(seen.inner.iter().map(|bytes| ("inner".to_owned(), hex(bytes)))).collect()
    }
}

struct Running {
    settings: Wild,
    random: ChaCha8Rng,
    seen: Arc<Mutex<Seen>>,
}

impl Stage for Running {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        for slot in 0..batch.len() {
            let strange = batch.punted().has(slot) && !batch.inner(slot).is_empty();
            if strange || (!batch.live().has(slot) && batch.packet(slot).is_some()) {
                self.seen.lock().broken.push(format!("slot {slot} is not live and has a packet to look at"));
            }
        }
        let panics_at = self.rolls(self.settings.panic).then(|| self.random.random_range(0..batch.len()));
        for slot in batch.open() {
            if panics_at.is_some_and(|at| at <= slot) {
                std::panic::panic_any(PANIC);
            }
            let mut model = batch.inner(slot).to_vec();
            if model.is_empty() {
                self.seen.lock().broken.push(format!("slot {slot} is open and has no inner packet"));
            }
            for _ in 0..self.random.random_range(0..4) {
                self.edit(batch, slot, &mut model);
            }
            let verdict = match () {
                () if self.rolls(self.settings.drop) => {
                    Verdict::Drop(cx.reason(self.random.random_range(0..2)))
                }
                () if self.rolls(self.settings.forward) => Verdict::Forward,
                () => Verdict::Next,
            };
            if !matches!(verdict, Verdict::Drop(_)) {
                self.seen.lock().inner.push(model);
            }
            batch.decide(slot, verdict);
            // The first decision stands.
            if verdict != Verdict::Next {
                batch.decide(slot, Verdict::Drop(cx.reason(0)));
            }
        }
    }
}

impl Running {
    fn rolls(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// One edit, and what must be true of the envelope behind it. `model` is the inner packet as it should be.
    fn edit(&mut self, batch: &mut Batch, slot: usize, model: &mut Vec<u8>) {
        let before = batch.frame(slot).to_vec();
        let was = Envelope::of(&before, batch.meta(slot).outer.into());
        let (done, what) = if self.rolls(self.settings.patch) {
            let at = self.random.random_range(0..model.len() + 4);
            let mut bytes = vec![0; self.random.random_range(0..24)];
            self.random.fill_bytes(&mut bytes);
            let fits = at + bytes.len() <= model.len();
            let done = batch.packet(slot).is_some_and(|mut packet| packet.patch(at, &bytes));
            if fits {
                model[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            if done != fits {
                self.seen.lock().broken.push(format!("patch of {} at {at} of {}", bytes.len(), model.len()));
            }
            (done, format!("patch({at}, {} bytes)", bytes.len()))
        } else if self.rolls(self.settings.resize) {
            let len = self.random.random_range(1..model.len() * 2 + 8);
            let done = batch.packet(slot).is_some_and(|mut packet| packet.resize(len));
            if done {
                model.resize(len, 0);
            }
            (done, format!("resize({len})"))
        } else {
            return;
        };
        let after = batch.frame(slot);
        let is = Envelope::of(after, batch.meta(slot).outer.into());
        let mut broken = Vec::new();
        if !done && after != before {
            broken.push("refused, and changed something");
        }
        if was.udp_error != is.udp_error || was.udp_is_none != is.udp_is_none || was.ip_error != is.ip_error {
            broken.push("the outer checksums are not as right as they were");
        }
        if done && !is.lengths_agree {
            broken.push("the outer lengths contradict each other");
        }
        if batch.inner(slot) != model.as_slice() {
            broken.push("the inner packet is not what it should be");
        }
        let mut seen = self.seen.lock();
        seen.broken
            .extend(broken.iter().map(|how| format!("{what}: {how}: {before:02x?} became {after:02x?}")));
    }
}

/// What a full look at a frame says of its envelope.
#[derive(Debug)]
pub struct Envelope {
    /// Ones' complement sum of the IP header: 0xffff if its checksum is right.
    pub ip_error: u16,
    /// The same of the UDP datagram and its pseudo header; meaningless where there is none.
    pub udp_error: u16,
    /// The checksum field is zero: none.
    pub udp_is_none: bool,
    /// IP and UDP lengths both end within the frame, UDP within IP.
    pub lengths_agree: bool,
}

impl Envelope {
    /// Everything summed anew, by the definition of RFC 1071 and with no code of the crate.
    pub fn of(frame: &[u8], outer: usize) -> Envelope {
        let ip = &frame[outer..];
        let header = usize::from(ip[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let length = usize::from(u16::from_be_bytes([ip[header + 4], ip[header + 5]]));
        let lengths_agree = total <= ip.len() && header + length <= total && length >= 8;
        let datagram = &ip[header..ip.len().min(header + length)];
        let pseudo = [&ip[12..20], &[0, 17], &ip[header + 4..header + 6]].concat();
        let is_none = datagram[6..8] == [0, 0];
        let error = if is_none { 0 } else { add(sum(&pseudo), sum(datagram)) };
        Envelope { ip_error: sum(&ip[..header]), udp_error: error, udp_is_none: is_none, lengths_agree }
    }
}

fn sum(bytes: &[u8]) -> u16 {
    bytes
        .chunks(2)
        .fold(0, |all, pair| add(all, u16::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u16::from(*b))))
}

/// Ones' complement addition.
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Keeps the panics of this stage out of the test's output; all others are shown as ever.
pub fn quiet() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PANIC) {
            shown(info);
        }
    }));
}
