//! `[metrics]`.

use super::check::Check;
use super::{MetricsPlan, schema};

/// The plan of `[metrics]`.
pub(super) fn check(check: &mut Check<'_>, file: &schema::Metrics) -> MetricsPlan {
    let default = MetricsPlan::default();
    let most = check.range("metrics.max_tenants", file.max_tenants, default.max_tenants as u32, 1, 10_000);
    MetricsPlan { max_tenants: most as usize }
}
