//! Networks that only say how to make others, where one of the swarm's was made of them on this
//! node: the engine does not know that, so it would remove them. Never looks at networks that the
//! engine itself made of one: those it knows.

use http::StatusCode;
use serde::Deserialize;

use super::part;
use crate::conn::Shared;
use crate::guise::id_in;
use crate::reply::Reply;
use crate::route::Target;
use crate::wire::RequestHead;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    name: String,
    #[serde(default)]
    config_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    config_from: Option<From>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct From {
    network: String,
}

/// The refusal of a removal, if something here was made of the network.
pub(super) async fn refusal(shared: &Shared, head: &RequestHead) -> Option<Reply> {
    let raw = Target::parse(&head.target).path.split('/').nth(2)?;
    if id_in(raw).is_some() {
        // What realises one of the swarm's says more than how to make others.
        return None;
    }
    let (status, body) = shared.engine.get(&format!("/networks/{raw}")).await?;
    let found: Configuration = serde_json::from_slice(&body).ok()?;
    if status != 200 || !found.config_only {
        return None;
    }
    let parts = shared.names.here().await;
    let mut parts = parts.iter().map(|(_, _, engines)| engines.as_str());
    let used = parts.any(|engines| is_made_of(engines, &found.name));
    used.then(|| {
        let name = &found.name;
        let text =
            format!("error while removing network: configuration network \"{name}\" is in use");
        Reply::error(StatusCode::FORBIDDEN, &text)
    })
}

/// Whether what the engine shows is its part in a network that was made of this one.
fn is_made_of(engines: &str, configuration: &str) -> bool {
    let made = part::described(engines);
    let made = made.and_then(|shown| serde_json::from_str::<Made>(&shown).ok());
    let from = made.and_then(|made| made.config_from);
    from.is_some_and(|from| from.network == configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_of_it_uses_it() {
        let part = |from: &str| {
            let shown = serde_json::json!({ "Name": "lan", "ConfigFrom": { "Network": from } });
            let labels = serde_json::json!({ "skep.network.shown": shown.to_string() });
            serde_json::json!({ "Name": "skep-x", "Labels": labels }).to_string()
        };
        assert!(is_made_of(&part("cfg"), "cfg"));
        assert!(!is_made_of(&part("cfg"), "cf"));
        assert!(!is_made_of(&part(""), "cfg"));
        assert!(!is_made_of(r#"{"Labels":{}}"#, "cfg"));
        assert!(!is_made_of("no", "cfg"));
    }
}
