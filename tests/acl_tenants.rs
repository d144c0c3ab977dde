//! Rules of `acl` for some tenants, through all hops.

mod common;

use common::inner::{udp, v4, wrap_from};
use common::{Fate, Rig, TUNNEL, plan};

const TENANTS: &str = "[[tenant]]\nname = \"shop\"\nendpoints = [1]\n[[tenant]]\nname = \"payments\"\nendpoints = [2]\n\
                       [[tenant]]\nname = \"lab\"\nendpoints = [3]\n";

fn text(rules: &str) -> String {
    format!("{TUNNEL}{TENANTS}[[stage]]\nuse = \"acl\"\nrule = [{rules}]\n")
}

fn fate(rig: &mut Rig, endpoint: u64, port: u16) -> String {
    let inner = udp(v4(10, 1, 0, 5, 40_000), v4(10, 2, 0, 9, port), b"?");
    match rig.fate(&wrap_from(endpoint, &inner, 7, 60_001)) {
        Fate::Home(_) => "home".into(),
        Fate::Dropped(reason) => reason,
        other => format!("{other:?}"),
    }
}

/// A rule of a tenant is not there for the others, and the order of rules holds among those that are.
#[test]
fn rules_are_for_their_tenants() {
    let rules = "{ action = \"deny\", protocol = \"udp\", destination_port = 53, tenant = \"payments\" }, \
                 { action = \"allow\", protocol = \"udp\", destination_port = \"53|123\" }, \
                 { action = \"allow\", protocol = \"udp\", destination_port = 514, tenant = \"shop|lab\" }, \
                 { action = \"allow\", protocol = \"udp\", destination_port = 69, tenant = \"default\" }";
    for stateful in ["", "stateful = false\n"] {
        let mut rig = Rig::new(&plan(&format!("{}{stateful}", text(rules))));
        // Endpoints that nobody names are the default tenant's.
        let found: Vec<[String; 4]> =
            [1, 2, 3, 9].map(|endpoint| [53, 123, 514, 69].map(|port| fate(&mut rig, endpoint, port))).into();
        let (home, denied) = ("home", "acl.default_deny");
        assert_eq!(found[0], [home, home, home, denied]);
        assert_eq!(found[1], ["acl.deny", home, denied, denied]);
        assert_eq!(found[2], [home, home, home, denied]);
        assert_eq!(found[3], [home, home, denied, home]);
        let (_, stage) = rig.pipeline.stages().next().unwrap();
        let counts: Vec<u64> = stage.counts().into_iter().map(|(_, n)| n).collect();
        assert_eq!(counts, [1, 7, 2, 1, 5]);
    }
}

#[test]
fn mistakes_with_tenants_are_named() {
    let wrong = |rules: &str| {
        let panic = std::panic::catch_unwind(|| plan(&text(rules))).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let found = wrong("{ action = \"allow\", tenant = \"shops\" }");
    assert!(found.contains("rule[0].tenant: there is no tenant \"shops\"; did you mean shop?"), "{found}");
    let found = wrong("{ action = \"allow\", tenant = \"warehouse\" }");
    assert!(found.contains("tenants are in [[tenant]] tables, or in their own file"), "{found}");
}

/// Rules that another tenant's rule would shadow are not warned of, nor do tenants stand in each other's way.
#[test]
fn a_rule_of_a_tenant_shadows_only_its_own() {
    let warnings = |rules: &str| plan(&text(rules)).warnings.join("\n");
    let deny = |tenant: &str| {
        format!("{{ action = \"deny\"{tenant} }}, {{ action = \"allow\", tenant = \"shop\" }}")
    };
    assert!(!warnings(&deny(", tenant = \"payments\"")).contains("never applies"));
    assert!(
        warnings(&deny(", tenant = \"shop|payments\""))
            .contains("rule[1] allow: never applies, rule[0] deny")
    );
    assert!(warnings(&deny("")).contains("rule[1] allow: never applies, rule[0] deny"));
}

/// More ways of naming tenants than there are classifiers.
#[test]
fn classes_of_tenants_are_bounded() {
    let tenants: String =
        (0..80).map(|n| format!("[[tenant]]\nname = \"t{n}\"\nendpoints = [{}]\n", 100 + n)).collect();
    let plan_of = |count: usize| {
        let rules: Vec<String> =
            (0..count).map(|n| format!("{{ action = \"allow\", tenant = \"t{n}\" }}")).collect();
        std::panic::catch_unwind(|| {
            plan(&text(&rules.join(", ")).replace("[[stage]]", &format!("{tenants}[[stage]]")))
        })
    };
    assert!(plan_of(64).is_ok());
    let found = plan_of(65).unwrap_err();
    let found = found.downcast_ref::<String>().unwrap();
    assert!(found.contains("rules name tenants in more than 64 ways"), "{found}");
}
