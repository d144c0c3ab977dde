//! Whose an endpoint is.

use crate::config::FlowPlan;

/// Which tenant an endpoint belongs to. Traffic comes in trains, so the last answer is remembered.
#[derive(Debug)]
pub struct Tenants {
    /// Ascending by endpoint.
    of: Box<[(u64, u16)]>,
    last: (u64, Option<u16>),
}

impl Tenants {
    /// Those of a plan.
    pub fn new(plan: &FlowPlan) -> Self {
        let tenants = plan.tenants.iter().enumerate();
        let mut of: Vec<(u64, u16)> =
            tenants.flat_map(|(n, t)| t.endpoints.iter().map(move |&e| (e, n as u16))).collect();
        of.sort_unstable();
        let mut tenants = Tenants { of: of.into(), last: (0, None) };
        tenants.last.1 = tenants.search(0);
        tenants
    }

    /// `None` for an endpoint that nobody claims.
    #[inline(always)]
    pub fn of(&mut self, endpoint: u64) -> Option<u16> {
        if self.last.0 != endpoint {
            self.last = (endpoint, self.search(endpoint));
        }
        self.last.1
    }

    #[inline(never)]
    fn search(&self, endpoint: u64) -> Option<u16> {
        let at = self.of.binary_search_by_key(&endpoint, |&(e, _)| e).ok()?;
        self.of.get(at).map(|&(_, tenant)| tenant)
    }
}
