use super::*;

#[test]
fn link_local_addresses_are_those_of_the_rfc() {
    // RFC 4291 appendix A: 34-56-78-9A-BC-DE becomes 36-56-78-FF-FE-9A-BC-DE.
    let address = link_local([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
    assert_eq!(address.to_string(), "fe80::3656:78ff:fe9a:bcde");
}
