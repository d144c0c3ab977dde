//! GENEVE (RFC 8926) and the option profiles of the clouds.

/// Option classes, types and lengths of one load balancer.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name in `tunnel.profile`.
    pub name: &'static str,
}
