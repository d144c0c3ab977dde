//! Words for numbers of DNS: types of records and outcomes, in Suricata's spelling (`dns_rrtype_string`, `dns_rcode_string`) and IANA's
//! (<https://www.iana.org/assignments/dns-parameters>).

/// Types, by number.
const TYPES: [(u16, &str); 79] = [
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (22, "NSAP"),
    (23, "NSAPPTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (38, "A6"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (258, "AVC"),
    (259, "DOA"),
    (260, "AMTRELAY"),
    (32768, "TA"),
    (32769, "DLV"),
];

/// Outcomes, by number.
const OUTCOMES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE",
];

/// The word for a type, if it has one.
pub fn kind(number: u16) -> Option<&'static str> {
    let at = TYPES.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    TYPES.get(at).map(|(_, word)| *word)
}

/// The type that somebody means by `AAAA`, `aaaa`, `TYPE28` (RFC 3597) or `28`.
pub fn kind_named(text: &str) -> Option<u16> {
    let upper = text.to_ascii_uppercase();
    let known = TYPES.iter().find(|(_, word)| *word == upper).map(|(number, _)| *number);
    known.or_else(|| upper.strip_prefix("TYPE").unwrap_or(&upper).parse().ok())
}

/// The word for an outcome, or its number.
pub fn outcome(number: u8) -> String {
    OUTCOMES.get(usize::from(number)).map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_words_and_numbers() {
        assert!(TYPES.is_sorted_by_key(|(number, _)| *number));
        for (number, word) in TYPES {
            assert_eq!((kind(number), kind_named(word)), (Some(word), Some(number)));
        }
        assert_eq!(
            (kind_named("txt"), kind_named("TYPE65"), kind_named("65")),
            (Some(16), Some(65), Some(65))
        );
        assert_eq!((kind_named("TYPE"), kind_named("65536"), kind_named("")), (None, None, None));
        assert_eq!((kind(31), outcome(3), outcome(13)), (None, "NXDOMAIN".into(), "13".into()));
    }
}
