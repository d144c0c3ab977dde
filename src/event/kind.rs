//! The types of records.

use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};

macro_rules! types {
    ($($(#[doc = $doc:literal])+ $variant:ident $word:literal,)*) => {
        /// What a record tells of; `event_type` in it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Type { $($(#[doc = $doc])+ $variant,)* }

        impl Type {
            /// All of them.
            pub const ALL: &'static [Type] = &[$(Type::$variant,)*];

            /// The word in `event_type`, in the configuration and in metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Type::$variant => $word,)* }
            }

            /// One sentence.
            pub const fn help(self) -> &'static str {
                match self { $(Type::$variant => concat!($($doc,)+).trim_ascii(),)* }
            }
        }
    };
}

types! {
    /// A flow ended: its ends, packets and bytes, and why.
    Flow "flow",
    /// A flow began.
    FlowStart "flow_start",
    /// A rule that is to be told of matched.
    Alert "alert",
    /// A packet was dropped.
    Drop "drop",
    /// A packet that no honest sender makes.
    Anomaly "anomaly",
    /// A TLS handshake.
    Tls "tls",
    /// An HTTP request and its answer.
    Http "http",
    /// A DNS query or answer.
    Dns "dns",
    /// An SSH connection's banners.
    Ssh "ssh",
    /// Counters, now and then.
    Stats "stats",
    /// A reload: who asked for it, and what became of it.
    Reload "reload",
    /// Health has changed: from what to what, and why.
    Health "health",
    /// What a stage in shadow mode would have done, or a verdict of a candidate that differs from what was done.
    Shadow "shadow",
}

/// How many there are.
pub(crate) const TYPES: usize = Type::ALL.len();

impl Type {
    /// Types that something makes. A stage that makes another adds it here.
    pub const PRODUCED: &'static [Type] = &[
        Type::Flow,
        Type::FlowStart,
        Type::Alert,
        Type::Drop,
        Type::Anomaly,
        Type::Tls,
        Type::Http,
        Type::Dns,
        Type::Ssh,
        Type::Stats,
        Type::Reload,
        Type::Health,
        Type::Shadow,
    ];

    /// Types that go through a ring of [`super::Event`]s.
    pub(crate) const IN_RINGS: &'static [Type] =
        &[Type::Alert, Type::Drop, Type::Anomaly, Type::Tls, Type::Http, Type::Dns, Type::Ssh, Type::Shadow];

    /// The type of that word.
    pub fn named(word: &str) -> Option<Type> {
        Type::ALL.iter().copied().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A set of types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Types(u16);

impl Types {
    /// None.
    pub const NONE: Types = Types(0);
    /// All.
    pub const ALL: Types = Types(u16::MAX >> (16 - TYPES));

    /// Is the type in it?
    #[inline(always)]
    pub const fn has(self, kind: Type) -> bool {
        self.0 >> (kind as u8) & 1 != 0
    }

    /// With the type.
    #[must_use]
    pub const fn with(self, kind: Type) -> Types {
        Types(self.0 | 1 << (kind as u8))
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn within(self, other: Types) -> Types {
        Types(self.0 & other.0)
    }

    /// Those that are in this one and not in the other.
    #[must_use]
    pub const fn without(self, other: Types) -> Types {
        Types(self.0 & !other.0)
    }

    /// Is there none in it?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Type> {
        Type::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }
}

/// The types that somebody wants at this moment: those of sinks always, those of followers while they are there. Everybody reads it, and it
/// changes when a follower comes or goes; who reads a moment late makes a record more or less, so nothing is ordered by it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Asked(AtomicU16);

impl Asked {
    /// These.
    pub fn of(types: Types) -> Self {
        Asked(AtomicU16::new(types.0))
    }

    /// What is wanted now.
    #[inline(always)]
    pub fn types(&self) -> Types {
        Types(self.0.load(Ordering::Relaxed))
    }

    /// Something else is wanted from now on.
    pub(super) fn set(&self, types: Types) {
        self.0.store(types.0, Ordering::Relaxed);
    }
}

impl FromIterator<Type> for Types {
    fn from_iter<I: IntoIterator<Item = Type>>(types: I) -> Self {
        types.into_iter().fold(Types::NONE, Types::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_types() {
        for kind in Type::ALL {
            assert_eq!(Type::named(kind.word()), Some(*kind));
        }
        assert_eq!(Type::named("fileinfo"), None);
        const { assert!(TYPES <= 16, "a set has 16 bits") }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: Types = [Type::Alert, Type::Stats].into_iter().collect();
        assert!(set.has(Type::Alert) && set.has(Type::Stats) && !set.has(Type::Flow));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Type::Alert, Type::Stats]);
        assert_eq!(set.within(Types::NONE.with(Type::Stats)), Types::NONE.with(Type::Stats));
        assert!(Types::NONE.is_empty() && !set.is_empty());
        assert_eq!(Types::ALL.iter().count(), TYPES);
        assert_eq!(Types::ALL, Type::ALL.iter().copied().collect());
        assert_eq!(set.without(Types::NONE.with(Type::Stats)), Types::NONE.with(Type::Alert));
    }

    /// What goes through rings and what does not are all types together.
    #[test]
    fn every_type_has_its_way() {
        let others = [Type::Flow, Type::FlowStart, Type::Stats, Type::Reload, Type::Health];
        let mut all: Vec<Type> = Type::IN_RINGS.iter().copied().chain(others).collect();
        all.sort_unstable();
        assert_eq!(all, Type::ALL);
    }
}
