//! Containers as a real engine describes them, and what becomes of their networks. Pure.

use skep_core::cidr::Cidr;

use super::*;

const ID: &str = "h2f1ema6de2sibxnco9owkfxz";

fn seen(networks: Value) -> Seen {
    let container = json!({
        "Id": "a0cbc512385441c399959406eed249b36d443e82890c400fddd9a5cdaa632d71",
        "Name": "/aa",
        "State": { "Running": false },
        "Config": { "Labels": null },
        "NetworkSettings": { "Networks": networks },
    });
    Seen::parse(container.to_string().as_bytes()).unwrap()
}

fn place(address: &str) -> Standing {
    Standing {
        ipv6: None,
        task: "t".into(),
        container: "c".into(),
        network: ID.into(),
        engines: "skep-n".into(),
        name: "ovl".into(),
        address: format!("{address}/24").parse().unwrap(),
        ready: true,
        error: None,
    }
}

fn wish_of(endpoint: Value) -> Attached {
    let seen = seen(json!({ "ovl": endpoint }));
    let (name, endpoint) = seen.networks().next().unwrap();
    let wish = seen.wish(name, endpoint);
    assert_eq!(wish.network, "ovl");
    wish.container
}

#[test]
fn what_was_asked_for_is_wished_for() {
    let asked = wish_of(json!({
        "IPAMConfig": { "IPv4Address": "10.0.1.50" },
        "Aliases": ["aal", "a0cbc5123854", "aal"],
        "NetworkID": "",
    }));
    assert_eq!(asked.names, ["aa", "aal", "a0cbc5123854"]);
    assert_eq!(asked.address, "10.0.1.50".parse().ok());
    assert_eq!(asked.last, None);
    let asked = wish_of(json!({ "IPAMConfig": { "IPv6Address": "fd00:1::50" } }));
    assert_eq!(asked.ipv6, "fd00:1::50".parse().ok());
    let nothing = wish_of(json!({ "IPAMConfig": null, "Aliases": null }));
    assert_eq!(nothing.names, ["aa", "a0cbc5123854"]);
    assert_eq!((nothing.address, nothing.last), (None, None));
    let chosen = wish_of(json!({
        "IPAMConfig": { "IPv4Address": "10.0.1.9", "IPv6Address": "fd00:1::9" },
        "DriverOpts": { CHOSEN_OPTION: "true" },
    }));
    assert_eq!(
        (chosen.address, chosen.last),
        (None, "10.0.1.9".parse().ok())
    );
    assert_eq!(chosen.ipv6, None, "it follows from the other");
}

#[test]
fn what_is_kept_completes_what_the_engine_says() {
    let realised = format!("skep-{ID}");
    let config = json!({
        "IPAMConfig": { "IPv4Address": "10.0.1.9" },
        "DriverOpts": { NAME_OPTION: "ovl", CHOSEN_OPTION: "true" },
    });
    let told = json!({ "Aliases": ["back"] });
    let entry = Entry {
        mode: Some("ovl".into()),
        stands_in: false,
        networks: [(realised.clone(), config), ("ovm".to_owned(), told)].into(),
    };
    let engines = json!({
        "podman": { "NetworkID": "podman" },
        &realised: { "IPAMConfig": null, "DriverOpts": null, "NetworkID": &realised },
    });
    let seen = seen(engines).recalled(entry);
    let networks: BTreeMap<&str, &Endpoint> = seen
        .networks()
        .map(|(name, it)| (name.as_str(), it))
        .collect();
    assert_eq!(networks.len(), 3);
    let wish = seen.wish(ID, networks[realised.as_str()]).container;
    assert_eq!((wish.address, wish.last), (None, "10.0.1.9".parse().ok()));
    assert!(!networks[realised.as_str()].is_meant() && networks["ovm"].is_meant());
    assert_eq!(networks["ovm"].aliases, Some(vec!["back".to_owned()]));
    // The engine alone says what is connected.
    assert!(seen.is_connected(&realised) && !seen.is_connected("ovm"));
    assert!(seen.is_kept("ovm") && !seen.is_kept("podman") && seen.has_stand_in());
}

#[test]
fn a_connection_has_the_place_and_keeps_the_rest() {
    let endpoint = Endpoint::parse(&json!({
        "Aliases": ["aal"],
        "Links": ["db"],
        "DriverOpts": { "mine": "1" },
        "GwPriority": 7,
    }));
    let expected = json!({
        "IPAMConfig": { "IPv4Address": "10.0.1.5" },
        "MacAddress": "02:42:0a:00:01:05",
        "Aliases": ["aal"],
        "Links": ["db"],
        "DriverOpts": { "mine": "1", NAME_OPTION: "ovl", CHOSEN_OPTION: "true" },
        "GwPriority": 7,
    });
    assert_eq!(connection(&endpoint, &place("10.0.1.5"), false), expected);
    let asked = connection(&endpoint, &place("10.0.1.5"), true);
    assert_eq!(
        asked["DriverOpts"],
        json!({ "mine": "1", NAME_OPTION: "ovl" })
    );
    let mut both = place("10.0.1.5");
    both.ipv6 = "fd00:1::5/64".parse().ok();
    let config = connection(&endpoint, &both, false);
    let expected = json!({ "IPv4Address": "10.0.1.5", "IPv6Address": "fd00:1::5" });
    assert_eq!(config["IPAMConfig"], expected);
}

#[test]
fn where_the_engine_gives_addresses_it_hears_which_was_asked_for() {
    let mut engines = place("0.0.0.0");
    engines.address = Cidr::NONE;
    let endpoint = Endpoint::parse(&json!({ "IPAMConfig": { "IPv4Address": "10.77.0.9" } }));
    let asked = connection(&endpoint, &engines, true);
    assert_eq!(asked["IPAMConfig"], json!({ "IPv4Address": "10.77.0.9" }));
    assert!(asked.get("MacAddress").is_none());
    let not = connection(&Endpoint::parse(&json!({})), &engines, false);
    assert!(not.get("IPAMConfig").is_none() && not.get("MacAddress").is_none());
}

#[test]
fn names_are_told_apart() {
    for (name, ours) in [
        ("ovl", true),
        (ID, true),
        ("bridge", false),
        ("container:x", false),
    ] {
        assert_eq!(may_be_ours(name), ours, "{name}");
    }
}

#[test]
fn a_tasks_container_has_its_places_already() {
    let container = json!({ "Id": "c", "Config": { "Labels": { LABEL_TASK_ID: "t" } } });
    assert!(Seen::parse(container.to_string().as_bytes()).is_none());
    assert!(Seen::parse(b"{}").is_none() && Seen::parse(b"no").is_none());
}
