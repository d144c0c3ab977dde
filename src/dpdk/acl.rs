//! Packet classification by `rte_acl`: many rules, a batch of keys, the best rule for each.
