use proptest::prelude::*;

use super::*;

fn wrong(text: &str) -> (usize, usize, String) {
    let Wrong { at, len, what } = Filter::parse(text, OF_FLOWS).expect_err(text);
    (at, len, what)
}

#[test]
fn terms_are_read() {
    let text = "  tenant=payments endpoint=vpce-0123456789abcdef0 proto=tcp src=10.1.0.0/16 dport=8000-8999\tstate=established verdict=settled app=ssh age=1h30m idle=5s";
    let filter = Filter::parse(text, OF_FLOWS).expect("a filter");
    let expected = Filter {
        tenant: Some("payments".into()),
        endpoint: Some(0x1234_5678_9abc_def0),
        protocol: Some(6),
        source: Some("10.1.0.0/16".parse().unwrap()),
        destination_port: Some(8000..=8999),
        state: Some("established"),
        verdict: Some(Standing::Settled),
        app: Some(crate::packet::App::Ssh),
        age: Some(Duration::from_secs(5400)),
        idle: Some(Duration::from_secs(5)),
        ..Filter::default()
    };
    assert_eq!(filter, expected);
    assert!(Filter::parse("", OF_FLOWS).expect("all").is_all());
    let of = |text| Filter::parse(text, OF_PACKETS).expect("a filter");
    assert_eq!(of("address=10.1.2.3").address, Some("10.1.2.3/32".parse().unwrap()));
    assert_eq!(
        of("address=10.1.2.3/16").address,
        Some("10.1.0.0/16".parse().unwrap()),
        "a host's own prefix"
    );
    assert_eq!(of("protocol=47 port=0").protocol, Some(47));
    assert_eq!(of("fate=dropped reason=acl.deny").fate, Some(Fate::Dropped));
}

#[test]
fn a_mistake_has_its_place() {
    assert_eq!(wrong("tenant=a port=70000").0, 14);
    assert_eq!(wrong("tenant=a port=70000").1, 5);
    for (text, what) in [
        ("port", "is no term: write it as port=443"),
        ("prot=6", "did you mean \"port\"?"),
        ("protocl=6", "did you mean \"protocol\"?"),
        ("fate=home", "there is no \"fate\" here"),
        ("port=443 dport=1 port=80", "port is there twice"),
        ("src=1.1.1.1 source=1.1.1.1", "source is there twice"),
        ("port=90-80", "ends before it begins"),
        ("port=+80", "is no port"),
        ("port=", "is no port"),
        ("protocol=256", "is no protocol"),
        ("protocol=tpc", "is no protocol: write tcp, udp"),
        ("address=10.1.2", "is no address"),
        ("address=10.1.2.3/33", "is no address"),
        ("endpoint=vpce-1", "8 or 17 hexadecimal digits"),
        ("state=open", "is not one of first, one-way"),
        ("app=web", "is nothing that flows speak"),
        ("verdict=dropped", "is not one of undecided, settled, condemned"),
        ("age=5", "is no time"),
        ("tenant=", "a name is missing"),
    ] {
        assert!(wrong(text).2.contains(what), "{text}: {}", wrong(text).2);
    }
    assert!(wrong(&"port=1 ".repeat(200)).2.contains("at most 512 bytes"));
    let text = "tenant=groß port=x";
    let shown = Filter::parse(text, OF_FLOWS).expect_err("a mistake").marked(text);
    let lines: Vec<&str> = shown.lines().skip(1).collect();
    assert_eq!(lines, ["  tenant=groß port=x", "                   ^"]);
}

#[test]
fn ends_are_compared() {
    let of = |text| Filter::parse(text, OF_PACKETS).expect("a filter");
    let (a, b) = ((IpAddr::from([10, 1, 0, 1]), 40_000), (IpAddr::from([10, 2, 0, 1]), 443));
    for (text, there, back) in [
        ("", true, true),
        ("address=10.2.0.0/16 port=443", true, true),
        ("src=10.1.0.0/16", true, false),
        ("dst=10.1.0.0/16", false, true),
        ("dport=443", true, false),
        ("sport=400-500", false, true),
        ("port=80", false, false),
        ("protocol=udp", false, false),
        ("address=::/0", false, false),
    ] {
        assert_eq!((of(text).takes_ends(a, b, 6), of(text).takes_ends(b, a, 6)), (there, back), "{text}");
    }
}

#[test]
fn events_are_chosen() {
    let of = |text| Filter::parse(text, OF_EVENTS).expect("a filter");
    let drop = Subject {
        kind: Type::Drop,
        ends: Some([(IpAddr::from([10, 1, 0, 1]), 40_000), (IpAddr::from([10, 2, 0, 1]), 443)]),
        protocol: Some(6),
        tenant: Some("payments"),
        endpoint: Some(7),
        stage: Some("edge"),
        reason: Some("edge.deny"),
    };
    let stats = Subject {
        kind: Type::Stats,
        ends: None,
        protocol: None,
        tenant: None,
        endpoint: None,
        stage: None,
        reason: None,
    };
    for (text, of_drop, of_stats) in [
        ("", true, true),
        ("type=drop,alert", true, false),
        ("type=stats", false, true),
        ("stage=edge tenant=payments reason=edge.deny endpoint=7", true, false),
        ("stage=other", false, false),
        ("tenant=lab", false, false),
        ("reason=edge.other", false, false),
        ("endpoint=8", false, false),
        ("address=10.2.0.0/16 port=443 protocol=tcp", true, false),
        ("src=10.2.0.0/16", false, false),
    ] {
        assert_eq!(
            (of(text).takes_event(&drop), of(text).takes_event(&stats)),
            (of_drop, of_stats),
            "{text}"
        );
    }
    let wrong = |text| Filter::parse(text, OF_EVENTS).expect_err(text).what;
    assert!(wrong("type=alrt").contains("did you mean \"alert\"?"), "{}", wrong("type=alrt"));
    assert!(wrong("type=drop,").contains("is no type"));
    assert!(wrong("state=first").contains("there is no \"state\" here"));
    assert_eq!(of("type=stats,alert").to_string(), "type=alert,stats");
}

proptest! {
    #[test]
    fn anything_is_a_filter_or_a_mistake_with_its_place(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        arbitrary_input(&bytes);
    }

    #[test]
    fn so_is_what_looks_like_one(
        kind in 0u8..3,
        terms in proptest::collection::vec((
            proptest::sample::select(OF_FLOWS.iter().chain(OF_PACKETS).chain(OF_EVENTS).copied().collect::<Vec<_>>()),
            prop_oneof!["[a-z0-9.:/-]{0,12}", "[0-9]{1,5}", "[0-9]{1,4}-[0-9]{1,4}", "[0-9]{1,9}(s|ms|h|days|years)", "10\\.[0-9]\\.[0-9]\\.0/[0-9]{1,2}"],
        ), 0..6),
    ) {
        let words: Vec<String> = terms.iter().map(|(term, value)| format!("{term}={value}")).collect();
        arbitrary_input(&[&[kind], words.join(" ").as_bytes()].concat());
    }
}
