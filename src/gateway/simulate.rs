//! What is lost when one of many targets or gateways dies, computed with the code that balances.
//!
//! Each gateway has its list of targets in an order of its own. A million flows come, each by ECMP to one of the gateways, which gives
//! it a target and remembers that. Then something dies:
//!
//! | event | who is asked | what counts |
//! |---|---|---|
//! | a target fails its checks | - | flows that had it; of the others, those for which the choice is another now (none may be) |
//! | a target is removed | - | likewise, with the table made anew |
//! | a gateway dies | gateways that do not know the flow | flows that reach one of them; of these, those that get another target |
//! | a target is removed, and later a gateway dies | likewise | likewise, of flows whose target is alive |
//!
//! ECMP is either *plain* (hash modulo gateways: nearly all flows change their gateway when one dies) or *resilient* (only the flows of the
//! dead one do). A gateway that does not know a flow may drop its TCP, as AWS's does: then what reaches another gateway
//! is what breaks. Or it asks the table, and what gets another target is what breaks.

use serde::Serialize;

use super::maglev::{Backend, Bad, Maglev, TABLE};

/// What is simulated.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Question {
    /// Targets, all of one weight. 2 to 1000.
    pub targets: u16,
    /// Gateways. 2 to 64.
    pub gateways: u16,
    /// Slots of the table.
    pub table: u32,
    /// Flows.
    pub flows: u32,
}

impl Default for Question {
    fn default() -> Self {
        Question { targets: 100, gateways: 8, table: TABLE, flows: 1_000_000 }
    }
}

/// What came of it: parts of all flows, from 0 to 1, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Flows of the target that has most, for one of the mean.
    pub fullest: f64,
    /// Flows of the target that dies: nothing can keep them.
    pub unavoidable: f64,
    /// A target fails its checks: flows of others for which the choice is another now.
    pub unhealthy_moves: f64,
    /// A target is removed: flows of others for which the choice is another now. Only what no gateway remembers is affected.
    pub removal_moves: f64,
    /// A gateway dies: flows that reach one which does not know them.
    pub reach_another: Ecmp,
    /// Of all flows, those that get another target there.
    pub change_target: Ecmp,
    /// The same if a target was removed since the flows began; flows of that target are left out.
    pub change_target_after_removal: Ecmp,
}

/// By the kind of ECMP in front of the gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ecmp {
    /// Hash modulo gateways.
    pub plain: f64,
    /// Only the flows of a dead gateway move.
    pub resilient: f64,
}

/// A gateway's own view: the table, and which target each of its backends is.
struct Gateway {
    table: Maglev,
    targets: Vec<u16>,
}

impl Gateway {
    /// The `n`-th gateway, without the target `gone`.
    fn new(n: u16, question: &Question, gone: Option<u16>) -> Result<Self, Bad> {
        let mut targets: Vec<u16> = (0..question.targets).filter(|target| Some(*target) != gone).collect();
        // An order of its own.
        targets.sort_unstable_by_key(|target| mix(u64::from(n) << 32 | u64::from(*target)));
        let names: Vec<[u8; 4]> = targets.iter().map(|&target| address(target)).collect();
        let backends: Vec<_> = names.iter().map(|name| Backend { name: &name[..], weight: 1 }).collect();
        Ok(Gateway { table: Maglev::build(question.table, &backends)?, targets })
    }

    fn choose(&self, hash: u64) -> u16 {
        self.named(&self.table, hash)
    }

    fn named(&self, table: &Maglev, hash: u64) -> u16 {
        table.at(hash).and_then(|n| self.targets.get(usize::from(n)).copied()).unwrap_or(u16::MAX)
    }
}

/// Addresses from 10.1.0.0 on.
fn address(target: u16) -> [u8; 4] {
    let [high, low] = target.to_be_bytes();
    [10, 1, high, low]
}

/// Computes it. The same question has the same answer.
pub fn run(question: &Question) -> Result<Answer, Bad> {
    let Question { targets, gateways, flows, .. } = *question;
    let all = || 0..gateways;
    let before = all().map(|n| Gateway::new(n, question, None)).collect::<Result<Vec<_>, _>>()?;
    // The target and the gateway in the middle: any will do.
    let (dead_target, dead_gateway) = (targets / 2, gateways / 2);
    let after = all().map(|n| Gateway::new(n, question, Some(dead_target))).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = before.first() else { return Ok(Answer::default()) };
    let healthy = |n: u16| first.targets.get(usize::from(n)) != Some(&dead_target);
    let stepped_over = first.table.resolve(healthy);

    let mut answer = Answer::default();
    let mut counts = vec![0u32; usize::from(targets)];
    let one = 1.0 / f64::from(flows.max(1));
    for flow in 0..flows {
        let hash = mix(flow.into());
        let ecmp = mix(hash ^ 0x5bd1_e995);
        let (at, plain, resilient) = meet(ecmp, gateways, dead_gateway);
        let Some(target) = before.get(usize::from(at)).map(|gateway| gateway.choose(hash)) else { continue };
        if let Some(count) = counts.get_mut(usize::from(target)) {
            *count += 1;
        }
        let gone = target == dead_target;
        answer.unavoidable += if gone { one } else { 0.0 };
        let others = |moved: bool| if !gone && moved { one } else { 0.0 };
        answer.unhealthy_moves += others(first.named(&stepped_over, hash) != target);
        answer.removal_moves += others(after.first().is_some_and(|g| g.choose(hash) != target));
        let meets = |gateways: &[Gateway], now: u16| {
            now != at && gateways.get(usize::from(now)).is_none_or(|g| g.choose(hash) != target)
        };
        let part = |yes: bool| if yes { one } else { 0.0 };
        answer.reach_another.plain += part(plain != at);
        answer.reach_another.resilient += part(resilient != at);
        answer.change_target.plain += part(meets(&before, plain));
        answer.change_target.resilient += part(meets(&before, resilient));
        answer.change_target_after_removal.plain += others(meets(&after, plain));
        answer.change_target_after_removal.resilient += others(meets(&after, resilient));
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    answer.fullest = f64::from(most) * f64::from(targets) * one;
    Ok(answer)
}

/// The gateway of a flow; and, when one is dead, that by plain and by resilient ECMP.
fn meet(ecmp: u64, gateways: u16, dead: u16) -> (u16, u16, u16) {
    let among = |hash: u64, n: u16| ((u128::from(hash) * u128::from(n)) >> 64) as u16;
    // Numbers of those who are left.
    let left = |n: u16| if n < dead { n } else { n + 1 };
    let before = (ecmp % u64::from(gateways.max(1))) as u16;
    let plain = left((ecmp % u64::from(gateways.saturating_sub(1).max(1))) as u16);
    let resilient =
        if before == dead { left(among(mix(ecmp), gateways.saturating_sub(1).max(1))) } else { before };
    (before, plain, resilient)
}

/// splitmix64.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(targets: u16, gateways: u16) -> Answer {
        run(&Question { targets, gateways, flows: 100_000, ..Question::default() }).unwrap()
    }

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= 0.1 * expected + 0.002
    }

    #[test]
    fn gateways_of_one_configuration_agree_whatever_the_order() {
        for (targets, gateways) in [(2, 2), (10, 8), (100, 64)] {
            assert_eq!(ask(targets, gateways).change_target, Ecmp::default(), "{targets}, {gateways}");
        }
    }

    #[test]
    fn health_moves_nobody_elses_flows_and_removal_few() {
        for targets in [10, 100, 300] {
            let answer = ask(targets, 2);
            assert_eq!(answer.unhealthy_moves, 0.0);
            assert!(near(answer.unavoidable, 1.0 / f64::from(targets)), "{answer:?}");
            assert!((0.0005..0.02).contains(&answer.removal_moves), "{answer:?}");
        }
    }

    /// Parts of slots that change hands among the others when the middle one goes, as another program counts them (Python, from the paper). Flows are
    /// a sample of slots: five standard deviations.
    #[test]
    fn a_removal_moves_what_another_program_says() {
        for (targets, part) in [(10, 0.002_11), (100, 0.005_25), (300, 0.008_47), (1000, 0.005_69)] {
            let found = ask(targets, 2).removal_moves;
            let deviation = (part / 100_000.0_f64).sqrt();
            assert!((found - part).abs() < 5.0 * deviation, "{targets} targets: {found}, {part} expected");
        }
    }

    #[test]
    fn what_reaches_another_gateway_follows_from_ecmp() {
        for gateways in [2, 8, 64] {
            let answer = ask(10, gateways);
            let one = 1.0 / f64::from(gateways);
            assert!(near(answer.reach_another.resilient, one), "{answer:?}");
            assert!(answer.reach_another.plain >= answer.reach_another.resilient - 0.002, "{answer:?}");
        }
        let many = ask(10, 64);
        assert!(many.reach_another.plain > 0.9, "modulo moves nearly all: {many:?}");
    }

    /// Only flows that reach another gateway and that the removal moved can change their target.
    #[test]
    fn a_removal_before_a_gateway_dies_costs_what_it_moved() {
        let answer = ask(100, 8);
        let lost = answer.change_target_after_removal;
        assert!(lost.plain > 0.0 && lost.plain <= answer.removal_moves, "{answer:?}");
        assert!(lost.resilient <= answer.removal_moves / 4.0, "{answer:?}");
    }

    #[test]
    fn sizes_that_are_none_are_said() {
        let question = Question { table: 65_536, ..Question::default() };
        assert_eq!(run(&question), Err(Bad::Size(65_536)));
    }
}
