//! What is refused of a network, and in which words.

use skep_api::{Kind, decode};

use super::*;

fn refusal(body: &str) -> Option<(Kind, String)> {
    let mut asked: CreateRequest = decode(body.as_bytes()).unwrap();
    if asked.driver.is_empty() {
        asked.driver = OVERLAY.to_owned();
    }
    let checked = network_spec(asked).and_then(|spec| check_network(&spec));
    checked.err().map(|error| (error.kind, error.message))
}

#[test]
fn what_is_wrong_is_refused_in_the_originals_words() {
    let rpc = |code: &str, text: &str| format!("rpc error: code = {code} desc = {text}");
    let ipam = |config: &str| format!(r#"{{"Name":"n","IPAM":{{"Config":[{config}]}}}}"#);
    let invalid = |text: &str| rpc("InvalidArgument", text);
    let table = [
        (
            r#"{"Name":" "}"#.to_owned(),
            "invalid name:  ".to_owned(),
        ),
        (
            r#"{"Name":"a.b"}"#.to_owned(),
            invalid("name must be valid as a DNS name component"),
        ),
        (
            r#"{"Name":"n","Ingress":true,"Attachable":true}"#.to_owned(),
            invalid("ingress network cannot be attachable"),
        ),
        (
            ipam(r#"{"Subnet":"x"}"#),
            "Invalid subnet x : invalid CIDR address: x".to_owned(),
        ),
        (
            ipam(r#"{"Subnet":"fd00::/129"}"#),
            "Invalid subnet fd00::/129 : invalid CIDR address: fd00::/129".to_owned(),
        ),
        (
            ipam(r#"{"Subnet":"10.1.0.0/24","IPRange":"x"}"#),
            invalid("ipam configuration: invalid range x"),
        ),
        (
            ipam(r#"{"Subnet":"10.1.0.0/24","IPRange":"10.2.0.0/25"}"#),
            invalid(
                "ipam configuration: subnet 10.1.0.0/24 does not contain range 10.2.0.0/25",
            ),
        ),
        (
            ipam(r#"{"Subnet":"10.1.0.0/24","Gateway":"10.2.0.1"}"#),
            invalid("ipam configuration: subnet 10.1.0.0/24 does not contain gateway 10.2.0.1"),
        ),
        (
            r#"{"Name":"n","Labels":{"com.docker.swarm.predefined":""}}"#.to_owned(),
            rpc(
                "PermissionDenied",
                "label com.docker.swarm.predefined is for internally created predefined \
                 networks and cannot be applied by users",
            ),
        ),
        (
            r#"{"Name":"n","Driver":"overlay","Scope":"local"}"#.to_owned(),
            "cannot downgrade network scope for overlay networks".to_owned(),
        ),
        (
            r#"{"Name":"n","Driver":"macvlan","Ingress":true,"Attachable":true}"#.to_owned(),
            "Ingress network can only be global scope network".to_owned(),
        ),
        (
            r#"{"Name":"n","Driver":"odd","Scope":"swarm"}"#.to_owned(),
            "plugin \"odd\" not found".to_owned(),
        ),
        (
            r#"{"Name":"n","Driver":"null","Scope":"swarm"}"#.to_owned(),
            invalid("error during lookup of plugin null"),
        ),
        (
            r#"{"Name":"n","IPAM":{"Driver":"mine"}}"#.to_owned(),
            invalid("error during lookup of plugin mine"),
        ),
        (
            r#"{"Name":"n","ConfigFrom":{"Network":"c"},"IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]}}"#
                .to_owned(),
            "user specified configurations are not supported if the network depends on a \
             configuration network"
                .to_owned(),
        ),
        (
            r#"{"Name":"n","EnableIPv4":false}"#.to_owned(),
            "IPv4 cannot be disabled in a Swarm scoped network".to_owned(),
        ),
    ];
    for (body, text) in table {
        assert_eq!(refusal(&body).map(|(_, text)| text), Some(text), "{body}");
    }
}

#[test]
fn ports_may_be_published_on_any_network() {
    let pools = r#"[{"Subnet":"10.5.0.0/24"},{"Subnet":"10.6.0.0/24"},{"Subnet":"fd00:5::/64"}]"#;
    for more in ["".to_owned(), format!(r#","IPAM":{{"Config":{pools}}}"#)] {
        let body = r#"{"Name":"n","Driver":"overlay","EnableIPv6":true,"Ingress":true"#;
        assert_eq!(refusal(&format!("{body}{more}}}")), None);
    }
}

#[test]
fn a_network_has_several_subnets_but_not_any_number() {
    let of = |count: usize, options: &str| {
        let pools =
            (0..count).map(|n| format!(r#"{{"Subnet":"10.{n}.0.0/24","Gateway":"10.{n}.0.9"}}"#));
        let pools: Vec<String> = pools.collect();
        let pools = pools.join(",");
        refusal(&format!(
            r#"{{"Name":"n","IPAM":{{"Config":[{pools}]}},"Options":{{{options}}}}}"#
        ))
        .map(|(_, text)| text)
    };
    let vnis = |list: &str| format!(r#""{VNI_OPTION}":"{list}""#);
    assert_eq!(of(2, ""), None);
    assert_eq!(of(MOST_SUBNETS, ""), None);
    assert_eq!(of(2, &vnis("5000")), None);
    assert_eq!(of(2, &vnis("5000,5001")), None);
    assert!(of(2, &vnis("5000,")).unwrap().contains("invalid value"));
    let many = of(MOST_SUBNETS + 1, "").unwrap();
    assert!(many.ends_with("at most 8 IPv4 subnets"), "{many}");
    // Those of IPv6 are counted by themselves.
    let dual = |ipv4: usize, ipv6: usize| {
        let first = (0..ipv4).map(|n| format!(r#"{{"Subnet":"10.{n}.0.0/24"}}"#));
        let second = (0..ipv6).map(|n| format!(r#"{{"Subnet":"fd00:{n}::/64"}}"#));
        let pools: Vec<String> = first.chain(second).collect();
        let pools = pools.join(",");
        refusal(&format!(
            r#"{{"Name":"n","EnableIPv6":true,"IPAM":{{"Config":[{pools}]}}}}"#
        ))
        .map(|(_, text)| text)
    };
    assert_eq!(dual(MOST_SUBNETS, MOST_SUBNETS), None);
    let many = dual(0, MOST_SUBNETS + 1).unwrap();
    assert!(many.ends_with("at most 8 IPv6 subnets"), "{many}");
}

#[test]
fn drivers_of_engines_make_what_they_like() {
    for driver in ["bridge", "macvlan", "ipvlan", "host"] {
        let body =
            format!(r#"{{"Name":"n","Driver":"{driver}","Scope":"swarm","EnableIPv6":true}}"#);
        assert_eq!(refusal(&body), None, "{driver}");
    }
}

#[test]
fn a_network_may_name_another_as_its_configuration() {
    let body = r#"{"Name":"n","IPAM":{"Driver":"default"},"ConfigFrom":{"Network":"c"}}"#;
    assert_eq!(refusal(body), None);
}

#[test]
fn what_the_cli_sends_passes() {
    let body = r#"{"Name":"n","CheckDuplicate":true,"Driver":"overlay","Scope":"",
        "EnableIPv6":false,"IPAM":{"Driver":"default","Options":{},"Config":[]},
        "Internal":false,"Attachable":true,"Ingress":false,"ConfigOnly":false,
        "ConfigFrom":null,"Options":{},"Labels":{}}"#;
    assert_eq!(refusal(body), None);
}
