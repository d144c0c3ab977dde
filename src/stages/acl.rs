//! Firewall rules.

use crate::stage::StageKind;

/// The kind `acl`.
pub const KIND: StageKind = StageKind {
    name: "acl",
    summary: "first-match firewall rules",
    help: "",
    example: "",
    reasons: &[("deny", "a rule or the default action said deny")],
    parse: |settings| Err(vec![settings.problem("", "not there yet", "")]),
};
