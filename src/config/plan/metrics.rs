//! What is exported of figures.

/// `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsPlan {
    /// Tenants with labels of their own, in the order of the configuration; the rest are `other`.
    pub max_tenants: usize,
}

impl Default for MetricsPlan {
    fn default() -> Self {
        MetricsPlan { max_tenants: 100 }
    }
}
