//! Flow records as AWS writes VPC Flow Logs, version 2, in the order of the default format
//! (<https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html>):
//!
//! `version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status`
//!
//! A record is of one direction, so a flow with an answer makes two lines. `interface-id` is the endpoint's name (the tenant's where
//! `flow.scope` is "tenant"), ports are 0 where the protocol has none, and `action` is REJECT for a flow that a stage dropped. Times
//! are those of the flow's first and last packet. Unlike AWS, which cuts long flows into windows, a flow is told once, when it ends.
//! Where flow events were lost a line says `SKIPDATA`.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who the lines say that they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowLog {
    /// `account-id`, twelve digits; "-" if empty.
    pub account: String,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direction {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ports: (u16, u16),
    pub protocol: u8,
    pub packets: u64,
    pub bytes: u64,
}

impl FlowLog {
    fn account(&self) -> &str {
        if self.account.is_empty() { "-" } else { &self.account }
    }

    /// One line.
    pub(super) fn line(
        &self,
        interface: &str,
        of: &Direction,
        (start, end): (SystemTime, SystemTime),
        accepted: bool,
        out: &mut String,
    ) {
        let ports = if matches!(of.protocol, 6 | 17 | 33 | 132 | 136) { of.ports } else { (0, 0) };
        let action = if accepted { "ACCEPT" } else { "REJECT" };
        // Writing into a string cannot fail.
        let _ = writeln!(
            out,
            "2 {} {interface} {} {} {} {} {} {} {} {} {} {action} OK",
            self.account(),
            of.source,
            of.destination,
            ports.0,
            ports.1,
            of.protocol,
            of.packets,
            of.bytes,
            seconds(start),
            seconds(end),
        );
    }

    /// Records are missing.
    pub(super) fn skipped(&self, since: SystemTime, until: SystemTime, out: &mut String) {
        let _ = writeln!(
            out,
            "2 {} - - - - - - - - {} {} - SKIPDATA",
            self.account(),
            seconds(since),
            seconds(until)
        );
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// The first example of AWS's "Flow log record examples": SSH traffic that was allowed, with their numbers and addresses.
    #[test]
    fn a_line_is_as_aws_prints_it() {
        let log = FlowLog { account: "123456789010".into() };
        let ssh = Direction {
            source: "172.31.16.139".parse().unwrap(),
            destination: "172.31.16.21".parse().unwrap(),
            ports: (20641, 22),
            protocol: 6,
            packets: 20,
            bytes: 4249,
        };
        let times = (at(1_418_530_010), at(1_418_530_070));
        let mut out = String::new();
        log.line("eni-1235b8ca123456789", &ssh, times, true, &mut out);
        assert_eq!(
            out,
            "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n"
        );
        out.clear();
        log.line("eni-1235b8ca123456789", &Direction { protocol: 1, ..ssh }, times, false, &mut out);
        assert!(out.contains(" 0 0 1 20 4249 ") && out.ends_with(" REJECT OK\n"), "{out}");
    }

    /// And that of records that were skipped.
    #[test]
    fn what_is_missing_is_said() {
        let mut out = String::new();
        FlowLog::default().skipped(at(1_431_280_876), at(1_431_280_934), &mut out);
        assert_eq!(out, "2 - - - - - - - - - 1431280876 1431280934 - SKIPDATA\n");
        assert_eq!(out.split_whitespace().count(), 14);
    }
}
