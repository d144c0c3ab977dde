//! A scenario as it is written.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::lab::layout::Way;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub about: Option<String>,
    #[serde(default)]
    pub lab: RawLab,
    #[serde(default)]
    pub step: Vec<Spanned<RawStep>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLab {
    pub appliances: Option<usize>,
    pub absent: Vec<String>,
    pub pipeline: Option<PathBuf>,
    pub appliance: Vec<String>,
    pub gateway: Vec<String>,
    pub mtu: Option<u16>,
    pub way: Way,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTraffic {
    pub connections: u32,
    pub datagrams: u32,
    pub opens_per_s: u32,
    pub interval: Option<String>,
    pub ipv6: Option<bool>,
    pub patience: Option<String>,
    pub datagram_patience: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStep {
    pub name: Option<String>,
    pub traffic: Option<RawTraffic>,
    pub mark: Option<String>,
    pub wait: Option<String>,
    pub kill: Option<String>,
    pub start: Option<String>,
    pub pause: Option<String>,
    pub resume: Option<String>,
    pub drain: Option<String>,
    pub reload: Option<String>,
    pub file: Option<PathBuf>,
    pub run: Option<Vec<String>>,
    pub r#in: Option<String>,
    pub background: bool,
    pub exit: Option<toml::Value>,
    pub output: Option<String>,
    pub timeout: Option<String>,
    pub optional: bool,
    pub ask: Option<String>,
    pub of: Option<String>,
    pub at: Option<String>,
    pub is: Option<toml::Value>,
    pub within: Option<String>,
    pub expect: Option<toml::Table>,
    pub total: Option<toml::Table>,
}

impl RawStep {
    /// Everything that a step can do.
    pub const VERBS: [&str; 13] = [
        "traffic", "mark", "wait", "kill", "start", "pause", "resume", "drain", "reload", "run", "ask",
        "expect", "total",
    ];

    /// What this one does.
    pub fn actions(&self) -> Vec<&'static str> {
        let given = [
            self.traffic.is_some(),
            self.mark.is_some(),
            self.wait.is_some(),
            self.kill.is_some(),
            self.start.is_some(),
            self.pause.is_some(),
            self.resume.is_some(),
            self.drain.is_some(),
            self.reload.is_some(),
            self.run.is_some(),
            self.ask.is_some(),
            self.expect.is_some(),
            self.total.is_some(),
        ];
        Self::VERBS.into_iter().zip(given).filter(|(_, given)| *given).map(|(verb, _)| verb).collect()
    }

    /// What is written beside that, and to what it belongs.
    pub fn beside(&self) -> Vec<(&'static str, &'static [&'static str])> {
        let run: &[&str] = &["run"];
        let ask: &[&str] = &["ask"];
        let given = [
            ("file", self.file.is_some(), &["reload"] as &[&str]),
            ("in", self.r#in.is_some(), run),
            ("background", self.background, run),
            ("exit", self.exit.is_some(), run),
            ("output", self.output.is_some(), run),
            ("timeout", self.timeout.is_some(), run),
            ("optional", self.optional, run),
            ("of", self.of.is_some(), ask),
            ("at", self.at.is_some(), ask),
            ("is", self.is.is_some(), ask),
            ("within", self.within.is_some(), ask),
        ];
        given.into_iter().filter(|(_, given, _)| *given).map(|(key, _, verbs)| (key, verbs)).collect()
    }
}
