//! Networks of the swarm that the engine makes by itself, with a driver of its own: a bridge of this
//! host's, or its part in a LAN. Never leads to other nodes and never chooses an address.

use bollard::models::NetworkInspect;
use serde_json::{Value, json};
use skep_core::assignment::Overlay;
use skep_core::network::{LABEL, LABEL_NAME, LABEL_SHOWN, LocalDriver, engine_name};
use skep_core::worker::{OpError, OpOutput, OpResult};

use super::connect::Link;
use super::network;

/// Makes it, unless it is there: it never changes.
pub(super) async fn make(link: &Link, wanted: &Overlay, driver: &LocalDriver) -> OpResult {
    let name = engine_name(&wanted.id, false);
    match network::inspect(link, &name).await {
        Ok(_) => return Ok(OpOutput::Done),
        Err(OpError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let config = match &driver.config_from {
        Some(from) => Some(configuration(link, from).await?),
        None => None,
    };
    network::create_as(link, body(&name, wanted, driver, config.as_ref())).await?;
    Ok(OpOutput::Done)
}

/// The node's own network that says how to make another.
async fn configuration(link: &Link, name: &str) -> Result<NetworkInspect, OpError> {
    let found = match network::inspect(link, name).await {
        Ok(found) => Some(found),
        Err(OpError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    // By its name alone, as the engine looks for it.
    let found = found.filter(|it| it.config_only == Some(true) && it.name.as_deref() == Some(name));
    found.ok_or_else(|| {
        // The engine's own words, had it looked.
        OpError::Failed(format!("configuration network {name:?} does not exist"))
    })
}

/// What the engine is asked for. It takes no labels beside the name of a configuration, and ours
/// must be there: so what the configuration says is said again.
fn body(
    name: &str,
    wanted: &Overlay,
    driver: &LocalDriver,
    config: Option<&NetworkInspect>,
) -> Value {
    let mut labels = driver.labels.clone();
    labels.extend(
        config
            .and_then(|it| it.labels.clone())
            .into_iter()
            .flatten(),
    );
    labels.extend([
        (LABEL.to_owned(), wanted.id.to_string()),
        (LABEL_NAME.to_owned(), wanted.name.clone()),
        (LABEL_SHOWN.to_owned(), wanted.shown.clone()),
    ]);
    let ipv6 = config.and_then(|it| it.enable_ipv6).unwrap_or(driver.ipv6);
    let mut body = json!({
        "Name": name,
        "CheckDuplicate": true,
        "Driver": driver.name,
        "Internal": wanted.internal,
        "EnableIPv6": ipv6,
        "Labels": labels,
    });
    if let (Some(config), Some(body)) = (config, body.as_object_mut()) {
        body.insert("Options".to_owned(), json!(config.options));
        let mut ipam = config.ipam.clone().unwrap_or_default();
        // None at all is not the same to who looks at it later.
        ipam.options = ipam.options.filter(|options| !options.is_empty());
        body.insert("IPAM".to_owned(), json!(ipam));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Overlay {
        serde_json::from_value(json!({
            "id": "l", "name": "lan", "vni": 0, "port": 0, "mtu": 0, "subnet": "0.0.0.0/32",
            "gateway": "0.0.0.0", "internal": true, "local": "0.0.0.0", "remotes": {},
            "shown": "{}",
        }))
        .unwrap()
    }

    fn driver() -> LocalDriver {
        LocalDriver {
            name: "macvlan".into(),
            config_from: None,
            ipv6: false,
            labels: [("a".to_owned(), "b".to_owned())].into(),
        }
    }

    #[test]
    fn what_a_configuration_says_is_said_again() {
        let config = json!({
            "ConfigOnly": true, "EnableIPv6": false, "Labels": {"c": "d"},
            "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.77.0.0/24"}]},
            "Options": {"parent": "eth0"},
        });
        let config: NetworkInspect = serde_json::from_value(config).unwrap();
        let body = body("skep-l", &wanted(), &driver(), Some(&config));
        assert_eq!(body["Driver"], "macvlan");
        assert_eq!(body["Options"], json!({"parent": "eth0"}));
        let ipam = json!({"Driver": "default", "Config": [{"Subnet": "10.77.0.0/24"}]});
        assert_eq!(body["IPAM"], ipam);
        let labels = json!({"a": "b", "c": "d", "skep.network": "l", "skep.network.name": "lan",
            "skep.network.shown": "{}"});
        assert_eq!(body["Labels"], labels);
        assert_eq!(body["Internal"], true);
    }

    #[test]
    fn without_one_the_engine_chooses() {
        let body = body("skep-l", &wanted(), &driver(), None);
        assert!(body.get("IPAM").is_none() && body.get("Options").is_none());
    }
}
