//! `POST /networks/prune`: both prune, and the engine spares what realises the swarm's networks.

use skep_core::network::LABEL;

use super::{ask, patched, text};
use crate::conn::{Connection, Next};
use crate::guise::refiltered;
use crate::reach::retarget;
use crate::rewrite::Object;
use crate::route::Owned;
use crate::wire::RequestHead;

/// The engine prunes what is its own, and a manager the swarm's.
pub(super) async fn prune(
    connection: &mut Connection<'_>,
    head: &mut RequestHead,
    manages: bool,
) -> Next {
    let ours = match manages {
        true => text(ask(connection.shared, head, Owned::NetworkPrune).await),
        false => None,
    };
    // Networks that realise the swarm's may be without a container for a moment.
    let target = sparing(&head.target);
    retarget(connection, head, target);
    patched(connection, head, |body| {
        let names = |json: &[u8]| -> Option<Vec<String>> {
            let list = Object::parse(json)
                .ok()?
                .get("NetworksDeleted")?
                .get()
                .to_owned();
            serde_json::from_str::<Option<Vec<String>>>(&list).ok()?
        };
        let ours = names(ours?.as_bytes()).filter(|names| !names.is_empty())?;
        let all = [names(body).unwrap_or_default(), ours].concat();
        let all = serde_json::to_string(&all).ok()?;
        let object = Object::parse(body).ok()?;
        Some(object.with(&[("NetworksDeleted", &all)]).into_bytes())
    })
    .await
}

/// The target of a prune that spares the networks with our label.
fn sparing(target: &str) -> String {
    let spared = refiltered(target, |filters| {
        let spared = filters.entry("label!".to_owned()).or_default();
        spared.push(LABEL.to_owned());
        Some(())
    });
    // What cannot be read is for the engine to refuse.
    spared.unwrap_or_else(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Target;
    use crate::swarm::Query;

    #[test]
    fn a_prune_spares_our_networks() {
        let decoded = |target: &str| {
            let target = sparing(target);
            let query = Query::parse(Target::parse(&target).query);
            (
                target.split('?').next().unwrap().to_owned(),
                query.get("filters").unwrap().to_owned(),
            )
        };
        let (path, filters) = decoded("/v1.41/networks/prune");
        assert_eq!(path, "/v1.41/networks/prune");
        assert_eq!(filters, r#"{"label!":{"skep.network":true}}"#);
        let (_, filters) =
            decoded("/networks/prune?filters=%7B%22label%21%22%3A%5B%22a%22%5D%7D&x=1");
        assert_eq!(filters, r#"{"label!":{"a":true,"skep.network":true}}"#);
        assert_eq!(
            sparing("/networks/prune?filters=x"),
            "/networks/prune?filters=x"
        );
    }
}
