//! `[health_check]`: how targets are checked.
//!
//! Names, defaults and bounds are AWS's for target groups of a gateway load balancer: protocol, port, path, interval and timeout as "Health checks for
//! Gateway Load Balancer target groups" (ELB user guide) has them; thresholds as the API reference has them for GENEVE (`CreateTargetGroup`:
//! 5 and 2; editions of the guide before 2022 say 3 and 3); codes as `Matcher` has them (200-399 for such groups; here any that an Application
//! Load Balancer takes, 200 to 499). Laboratories are in a hurry, so shorter times are taken as well, with a warning.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{Span, Word, span};

/// Interval and timeout of AWS; outside there is a warning.
const INTERVALS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];
const TIMEOUTS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(120)];
/// Nothing shorter is taken: one check a second of a thousand targets is work already.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(50);
/// Both thresholds.
const THRESHOLDS: [u32; 2] = [2, 10];
/// Characters of a path.
const LONGEST_PATH: usize = 1024;
/// Codes that a matcher may name.
const CODES: [u16; 2] = [200, 499];
/// Ranges of a matcher.
const MOST_RANGES: usize = 32;

/// What a check does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connects.
    #[default]
    Tcp,
    /// Asks for a page.
    Http,
    /// The same under TLS. Certificates are not verified.
    Https,
}

/// The codes with which a page may come, as ranges, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher(Vec<[u16; 2]>);

/// How targets are checked. Only [`Written::check`] makes one, so times and thresholds are within bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a check does.
    pub protocol: Protocol,
    /// Where.
    pub port: u16,
    /// For what it asks.
    pub path: String,
    /// What is a good answer.
    pub matcher: Matcher,
    /// From the start of a check to that of the next, at most.
    pub interval: Duration,
    /// How long a check may take, ARP and handshakes included.
    pub timeout: Duration,
    /// A check comes earlier than the interval says by a random part of this.
    pub jitter: Duration,
    /// Successes in a row that make an unhealthy target healthy.
    pub healthy_threshold: u32,
    /// Failures in a row that make a target unhealthy.
    pub unhealthy_threshold: u32,
}

/// `[health_check]` as it stands in a file. Every key may be missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Written {
    protocol: Protocol,
    port: Option<u32>,
    path: Option<String>,
    matcher: Option<Word>,
    interval: Option<Span>,
    timeout: Option<Span>,
    jitter: Option<Span>,
    healthy_threshold: Option<u32>,
    unhealthy_threshold: Option<u32>,
}

/// A value that cannot be used: the key in `[health_check]`, what is wrong, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// `interval`.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "health_check.{}: {}; {}", self.key, self.what, self.remedy)
    }
}

impl Default for HealthCheck {
    /// AWS's defaults: a connection to port 80 every ten seconds.
    fn default() -> Self {
        HealthCheck {
            protocol: Protocol::Tcp,
            port: 80,
            path: "/".into(),
            matcher: Matcher::default(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            jitter: Duration::from_secs(1),
            healthy_threshold: 5,
            unhealthy_threshold: 2,
        }
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "a connection to port {}", self.port)?,
            Protocol::Http => write!(f, "http port {}, {}, {}", self.port, self.path, self.matcher)?,
            Protocol::Https => write!(f, "https port {}, {}, {}", self.port, self.path, self.matcher)?,
        }
        let [interval, timeout] = [self.interval, self.timeout].map(span);
        let (healthy, unhealthy) = (self.healthy_threshold, self.unhealthy_threshold);
        write!(f, "; every {interval}, for {timeout}; healthy after {healthy}, unhealthy after {unhealthy}")
    }
}

impl Written {
    /// The settings, all mistakes (the default stands in for what is wrong), and what is worth a warning.
    pub fn check(&self) -> (HealthCheck, Vec<Wrong>, Vec<String>) {
        let usual = HealthCheck::default();
        let mut seen = Seen::default();
        let port = match self.port.map(u16::try_from) {
            None => usual.port,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => {
                let what = format!("{} is not a port", self.port.unwrap_or_default());
                seen.wrong("port", what, "ports are 1 to 65535");
                usual.port
            }
        };
        let path = match self.path.as_deref() {
            None => usual.path,
            Some(path) if is_path(path) => path.to_owned(),
            Some(path) => {
                let remedy = format!(
                    "a path begins with `/` and has up to {LONGEST_PATH} characters; what is not ASCII, and spaces, are written as %20"
                );
                seen.wrong("path", format!("{path:?} is not a path"), remedy);
                usual.path
            }
        };
        let matcher = self.matcher.as_ref().map(|Word(text)| Matcher::parse(text));
        let matcher = matcher.unwrap_or(Ok(usual.matcher)).unwrap_or_else(|wrong| {
            seen.wrongs.push(wrong);
            Matcher::default()
        });
        if self.protocol == Protocol::Tcp {
            let given = [("path", self.path.is_some()), ("matcher", self.matcher.is_some())];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                seen.warnings
                    .push(format!("health_check.{key} is there, but protocol \"tcp\" only connects"));
            }
        }
        let interval = seen.time("interval", self.interval, usual.interval, SHORTEST_INTERVAL, INTERVALS);
        let within = usual.timeout.min(interval);
        let mut timeout = seen.time("timeout", self.timeout, within, SHORTEST_TIMEOUT, TIMEOUTS);
        if timeout > interval {
            let what = format!("{} is longer than the interval, {}", span(timeout), span(interval));
            seen.wrong(
                "timeout",
                what,
                "a check is over before the next begins: shorten it, or lengthen the interval",
            );
            timeout = interval;
        }
        let mut jitter = self.jitter.map_or(interval / 10, |Span(jitter)| jitter);
        if jitter > interval / 2 {
            let what = format!("{} is more than half of the interval, {}", span(jitter), span(interval));
            seen.wrong("jitter", what, "a tenth of the interval is usual, 0s is none");
            jitter = interval / 2;
        }
        let healthy_threshold =
            seen.threshold("healthy_threshold", self.healthy_threshold, usual.healthy_threshold);
        let unhealthy_threshold =
            seen.threshold("unhealthy_threshold", self.unhealthy_threshold, usual.unhealthy_threshold);
        let protocol = self.protocol;
        let check = HealthCheck {
            protocol,
            port,
            path,
            matcher,
            interval,
            timeout,
            jitter,
            healthy_threshold,
            unhealthy_threshold,
        };
        (check, seen.wrongs, seen.warnings)
    }
}

/// What has been found so far.
#[derive(Default)]
struct Seen {
    wrongs: Vec<Wrong>,
    warnings: Vec<String>,
}

impl Seen {
    fn wrong(&mut self, key: &'static str, what: String, remedy: impl Into<String>) {
        self.wrongs.push(Wrong { key, what, remedy: remedy.into() });
    }

    fn time(
        &mut self,
        key: &'static str,
        given: Option<Span>,
        usual: Duration,
        shortest: Duration,
        [least, most]: [Duration; 2],
    ) -> Duration {
        let Some(Span(time)) = given else { return usual };
        if time < shortest || time > most {
            let what = format!("{} is not between {} and {}", span(time), span(shortest), span(most));
            self.wrong(key, what, format!("AWS takes {} to {}", span(least), span(most)));
            return usual;
        }
        if time < least {
            self.warnings.push(format!(
                "health_check.{key} = {} is outside AWS's bounds, {} to {}: good for a laboratory",
                span(time),
                span(least),
                span(most)
            ));
        }
        time
    }

    fn threshold(&mut self, key: &'static str, given: Option<u32>, usual: u32) -> u32 {
        let [least, most] = THRESHOLDS;
        match given {
            Some(n) if n < least || n > most => {
                let remedy = format!("{usual} is usual");
                self.wrong(key, format!("{n} is not between {least} and {most}"), remedy);
                usual
            }
            given => given.unwrap_or(usual),
        }
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= LONGEST_PATH && path.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Default for Matcher {
    fn default() -> Self {
        Matcher(vec![[200, 399]])
    }
}

impl Matcher {
    /// Reads "200-399", "200,301" or "204".
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let [least, most] = CODES;
        let code = |text: &str| {
            let text = text.trim();
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|code| (least..=most).contains(code))
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some([code(first)?, code(last)?]).filter(|[first, last]| first <= last)
        };
        let ranges: Option<Vec<_>> = text.split(',').take(MOST_RANGES + 1).map(range).collect();
        ranges.filter(|ranges| ranges.len() <= MOST_RANGES).map(Matcher).ok_or_else(|| Wrong {
            key: "matcher",
            what: format!("{text:?} is no list of codes"),
            remedy: format!("write it as \"200-399\" or \"200,204\", with codes from {least} to {most}"),
        })
    }

    /// Is this a good answer?
    pub fn takes(&self, code: u16) -> bool {
        self.0.iter().any(|[first, last]| (*first..=*last).contains(&code))
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, [first, last]) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (HealthCheck, Vec<String>, Vec<String>) {
        let (check, wrongs, warnings) = toml::from_str::<Written>(text).unwrap().check();
        (check, wrongs.iter().map(ToString::to_string).collect(), warnings)
    }

    #[test]
    fn nothing_written_is_what_aws_does() {
        assert_eq!(check(""), (HealthCheck::default(), vec![], vec![]));
    }

    #[test]
    fn everything_can_be_written() {
        let (written, wrongs, warnings) = check(
            "protocol = \"https\"\nport = 8443\npath = \"/ready?full=1\"\nmatcher = \"200-204,301\"\ninterval = \"5s\"\n\
             timeout = \"2s\"\njitter = \"0s\"\nhealthy_threshold = 2\nunhealthy_threshold = 10",
        );
        assert!(wrongs.is_empty() && warnings.is_empty(), "{wrongs:?} {warnings:?}");
        let expected = HealthCheck {
            protocol: Protocol::Https,
            port: 8443,
            path: "/ready?full=1".into(),
            matcher: Matcher(vec![[200, 204], [301, 301]]),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            jitter: Duration::ZERO,
            healthy_threshold: 2,
            unhealthy_threshold: 10,
        };
        assert_eq!(written, expected);
        assert_eq!(written.matcher.to_string(), "200-204,301");
        let takes: Vec<u16> = (0..=999).filter(|code| written.matcher.takes(*code)).collect();
        assert_eq!(takes, [200, 201, 202, 203, 204, 301]);
    }

    #[test]
    fn times_of_a_laboratory_are_taken_with_a_warning() {
        let (written, wrongs, warnings) = check("interval = \"500ms\"\ntimeout = \"250ms\"");
        assert_eq!(wrongs, Vec::<String>::new());
        assert_eq!((written.interval.as_millis(), written.timeout.as_millis()), (500, 250));
        assert_eq!(written.jitter.as_millis(), 50, "a tenth of the interval");
        assert_eq!(
            warnings,
            [
                "health_check.interval = 500ms is outside AWS's bounds, 5s to 300s: good for a laboratory",
                "health_check.timeout = 250ms is outside AWS's bounds, 2s to 120s: good for a laboratory",
            ]
        );
        let (written, wrongs, _) = check("interval = \"1s\"");
        assert!(wrongs.is_empty(), "the usual timeout gives way: {wrongs:?}");
        assert_eq!(written.timeout, Duration::from_secs(1));
    }

    #[test]
    fn each_mistake_is_named_with_its_remedy() {
        for (text, expected) in [
            ("port = 0", "health_check.port: 0 is not a port; ports are 1 to 65535"),
            ("port = 65536", "health_check.port: 65536 is not a port"),
            ("path = \"ready\"", "health_check.path: \"ready\" is not a path; a path begins with `/`"),
            ("path = \"/a b\"", "health_check.path: \"/a b\" is not a path"),
            ("path = \"/\\r\\nX: y\"", "is not a path"),
            (
                "matcher = \"200-\"",
                "health_check.matcher: \"200-\" is no list of codes; write it as \"200-399\"",
            ),
            ("matcher = \"399-200\"", "is no list of codes"),
            ("matcher = \"500\"", "with codes from 200 to 499"),
            ("matcher = \"\"", "is no list of codes"),
            (
                "interval = \"99ms\"",
                "health_check.interval: 99ms is not between 100ms and 300s; AWS takes 5s to 300s",
            ),
            ("interval = \"301s\"", "health_check.interval: 301s is not between"),
            ("timeout = \"49ms\"", "health_check.timeout: 49ms is not between 50ms and 120s"),
            (
                "interval = \"5s\"\ntimeout = \"6s\"",
                "health_check.timeout: 6s is longer than the interval, 5s; a check is over",
            ),
            ("jitter = \"6s\"", "health_check.jitter: 6s is more than half of the interval, 10s; a tenth"),
            (
                "healthy_threshold = 1",
                "health_check.healthy_threshold: 1 is not between 2 and 10; 5 is usual",
            ),
            (
                "unhealthy_threshold = 11",
                "health_check.unhealthy_threshold: 11 is not between 2 and 10; 2 is usual",
            ),
        ] {
            let text = format!("protocol = \"http\"\n{text}");
            let (_, wrongs, _) = check(&text);
            assert!(wrongs.len() == 1 && wrongs[0].contains(expected), "{text}: {wrongs:?}");
        }
        let (_, _, warnings) = check("path = \"/ready\"");
        assert_eq!(warnings, ["health_check.path is there, but protocol \"tcp\" only connects"]);
        let (_, wrongs, _) = check("port = 0\njitter = \"8s\"");
        assert_eq!(wrongs.len(), 2, "all of them at once");
    }

    #[test]
    fn a_matcher_is_a_number_too_and_bounded() {
        assert_eq!(check("protocol = \"http\"\nmatcher = 204").0.matcher.to_string(), "204");
        assert!(Matcher::parse(&["200"; MOST_RANGES].join(",")).is_ok());
        assert!(Matcher::parse(&["200"; MOST_RANGES + 1].join(",")).is_err());
    }
}
