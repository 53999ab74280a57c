//! From what a client wrote to an object: by id, else by name, else by the prefix of an id. Pure;
//! the texts are the interface. Never creates or changes anything.
//!
//! Source of the behaviour: moby `daemon/cluster/helpers.go`.

use std::sync::Arc;

use skep_api::Error;

use crate::object::{ConfigObject, NetworkObject, Node, SecretObject, Service, Task};
use crate::store::State;

/// The service with this id, name or prefix of an id.
///
/// # Errors
/// 404 `service X not found`, 400 `service X is ambiguous (N matches found)`; no prefix, since the
/// daemon layer says so.
pub fn service<'a>(view: &'a State, input: &'a str) -> Result<&'a Arc<Service>, Error> {
    if let Some(service) = view.services().get(input) {
        return Ok(service);
    }
    // The index ignores case; the lookup does not.
    let named = view
        .service_named(input)
        .filter(|service| service.spec.name == input);
    only(
        "service",
        input,
        named.into_iter(),
        view.services().with_prefix(input),
    )
}

/// The node with this id, host name or prefix of an id. Two nodes may have one host name.
///
/// # Errors
/// As [`service`], with `node` in the text.
pub fn node<'a>(view: &'a State, input: &'a str) -> Result<&'a Arc<Node>, Error> {
    if let Some(node) = view.nodes().get(input) {
        return Ok(node);
    }
    let named = view.nodes().iter().filter(|node| {
        node.description
            .as_ref()
            .is_some_and(|description| description.hostname == input)
    });
    only("node", input, named, view.nodes().with_prefix(input))
}

/// The task with this id, name (`web.1.<id>`) or prefix of an id.
///
/// # Errors
/// As [`service`], with `task` in the text.
pub fn task<'a>(view: &'a State, input: &'a str) -> Result<&'a Arc<Task>, Error> {
    if let Some(task) = view.tasks().get(input) {
        return Ok(task);
    }
    // The name ends with the id, so that no table has to be searched.
    let id = input.rsplit('.').next().unwrap_or_default();
    let named = view.tasks().get(id).filter(|task| task.name() == input);
    only(
        "task",
        input,
        named.into_iter(),
        view.tasks().with_prefix(input),
    )
}

/// The secret with this id, name in any case of letters, or prefix of an id.
///
/// # Errors
/// As [`service`], with `secret` in the text.
pub fn secret<'a>(view: &'a State, input: &'a str) -> Result<&'a Arc<SecretObject>, Error> {
    let exact = view.secrets().get(input);
    let named = exact.or_else(|| view.secret_named(input)).into_iter();
    only("secret", input, named, view.secrets().with_prefix(input))
}

/// The config with this id, name in any case of letters, or prefix of an id.
///
/// # Errors
/// As [`service`], with `config` in the text.
pub fn config<'a>(view: &'a State, input: &'a str) -> Result<&'a Arc<ConfigObject>, Error> {
    let exact = view.configs().get(input);
    let named = exact.or_else(|| view.config_named(input)).into_iter();
    only("config", input, named, view.configs().with_prefix(input))
}

/// The network with this id, name or prefix of an id.
///
/// # Errors
/// As [`service`], with `network` in the text.
pub fn network<'a>(view: &'a State, input: &'a str) -> Result<&'a Arc<NetworkObject>, Error> {
    let exact = view.networks().get(input);
    let named = view.network_named(input).filter(|it| it.spec.name == input);
    let found = exact.or(named).into_iter();
    only("network", input, found, view.networks().with_prefix(input))
}

/// The single match by name; without any, the single match by prefix.
fn only<'a, T>(
    kind: &str,
    input: &str,
    named: impl Iterator<Item = &'a Arc<T>>,
    prefixed: impl Iterator<Item = &'a Arc<T>>,
) -> Result<&'a Arc<T>, Error> {
    let mut found: Vec<_> = named.collect();
    if found.is_empty() {
        found = prefixed.collect();
    }
    match found.as_slice() {
        [] => Err(Error::not_found(format!("{kind} {input} not found"))),
        [one] => Ok(*one),
        many => {
            let n = many.len();
            Err(Error::invalid(format!(
                "{kind} {input} is ambiguous ({n} matches found)"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::testing::{node, service, state};

    #[test]
    fn id_before_name_before_prefix() {
        let mut web = service("abc1", "web");
        let odd = service("abc2", "abc1");
        web.spec.name = "web".into();
        let view = state([
            web.into(),
            odd.into(),
            node("n1", "host").into(),
            node("n2", "host").into(),
            node("n3", "n2").into(),
        ]);
        let found = |input: &str| super::service(&view, input).map(|found| found.id.to_string());
        assert_eq!(found("abc1").unwrap(), "abc1", "the id wins over the name");
        assert_eq!(found("web").unwrap(), "abc1");
        assert_eq!(found("abc2").unwrap(), "abc2");
        for (input, text) in [
            ("x", "service x not found"),
            ("Web", "service Web not found"),
            ("abc", "service abc is ambiguous (2 matches found)"),
        ] {
            assert_eq!(found(input).unwrap_err().message, text);
        }
        let found = |input: &str| super::node(&view, input).map(|found| found.id.to_string());
        assert_eq!(found("n2").unwrap(), "n2");
        assert_eq!(
            found("host").unwrap_err().message,
            "node host is ambiguous (2 matches found)"
        );
        assert_eq!(found("zz").unwrap_err().message, "node zz not found");
        assert_eq!(
            super::task(&view, "t").unwrap_err().message,
            "task t not found"
        );
    }
}
