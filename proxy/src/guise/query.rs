//! Filters of requests that name networks, in the engine's terms. What a client means by a name is
//! looked up; nothing is refused here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use skep_core::network::{ENGINE_PREFIXES, MOST_SUBNETS, branch_name};

use super::id_in;
use crate::conn::Connection;
use crate::reach::retarget;
use crate::route::Target;
use crate::swarm::Query;
use crate::wire::RequestHead;

/// No network of an engine is called this, and no id begins like it.
const NOBODY: &str = "/";

/// The terms of filters, by their keys.
pub(crate) type Terms = BTreeMap<String, Vec<String>>;

/// The filters of a target; `None` if they are not for us to read.
fn filters_of(target: &str) -> Option<Terms> {
    let query = Query::parse(Target::parse(target).query);
    let filters = query.get("filters").filter(|it| !it.is_empty());
    let filters: Map<String, Value> = serde_json::from_str(filters.unwrap_or("{}")).ok()?;
    let all = filters.iter();
    all.map(|(key, value)| Some((key.clone(), terms(value)?)))
        .collect()
}

/// A target with other filters; `None` if those that it has are not for us to read, or `change`
/// finds nothing to do.
pub(crate) fn refiltered(
    target: &str,
    change: impl FnOnce(&mut Terms) -> Option<()>,
) -> Option<String> {
    let mut filters = filters_of(target)?;
    change(&mut filters)?;
    // In one form: engines do not read a mixture.
    let map = |terms: Vec<String>| terms.into_iter().map(|term| (term, true)).collect();
    let filters = filters.into_iter().map(|(key, terms)| (key, map(terms)));
    let filters: BTreeMap<String, BTreeMap<String, bool>> = filters.collect();
    let filters = serde_json::to_string(&filters).ok()?;
    let query = Target::parse(target).query;
    let rest = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("filters="));
    let mut pairs: Vec<String> = rest.map(ToOwned::to_owned).collect();
    pairs.push(format!("filters={}", encoded(&filters)));
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    Some(format!("{path}?{}", pairs.join("&")))
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The terms of one key, in either of the forms that engines read.
fn terms(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(terms) => {
            let text = |term: &Value| Some(term.as_str()?.to_owned());
            terms.iter().map(text).collect()
        }
        Value::Object(terms) => Some(terms.keys().cloned().collect()),
        _ => None,
    }
}

/// Lists of containers by network: the swarm's are among those of the engine under other names.
pub(super) async fn by_network(connection: &mut Connection<'_>, head: &mut RequestHead) {
    let asked = filters_of(&head.target).and_then(|mut filters| filters.remove("network"));
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return;
    };
    let here = connection.shared.names.here().await;
    let here: Vec<(&str, &str)> = here.iter().map(|(id, name, _)| (&**id, &**name)).collect();
    let target = refiltered(&head.target, |filters| {
        filters.insert("network".to_owned(), translated(&asked, &here));
        Some(())
    });
    if let Some(target) = target {
        retarget(connection, head, target);
    }
}

/// What a client means, as the engine has to be asked: by a name, or the beginning of an id.
fn translated(asked: &[String], here: &[(&str, &str)]) -> Vec<String> {
    let mut terms = Vec::new();
    for term in asked {
        let ours = here
            .iter()
            .filter(|(id, name)| name == term || id.starts_with(term.as_str()));
        for (id, _) in ours {
            let id = &(*id).into();
            // Those of one of the two kinds are there.
            for ingress in [false, true] {
                let all = (0..MOST_SUBNETS).map(|branch| branch_name(id, ingress, branch));
                terms.extend(all);
            }
        }
        // By the name that the engine has for one of ours it is not known.
        if id_in(term).is_none() {
            terms.push(term.clone());
        }
    }
    if terms.is_empty() {
        terms.push(NOBODY.to_owned());
    }
    terms
}

/// Events by network: all that realise ours, of which the guise then leaves out what was not meant.
pub(super) fn widen(connection: &mut Connection<'_>, head: &mut RequestHead) {
    let target = refiltered(&head.target, |filters| {
        let asked = filters.get_mut("network").filter(|it| !it.is_empty())?;
        asked.extend(ENGINE_PREFIXES.map(ToOwned::to_owned));
        Some(())
    });
    if let Some(target) = target {
        retarget(connection, head, target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_asked_for_by_the_engines_names() {
        let id = "abcdefghijklmnopqrstuvw12";
        let hidden = format!("skep-{id}");
        let ingress = format!("0skep-{id}");
        let asked = |terms: &[&str]| {
            let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
            translated(&terms, &[(id, "front")])
        };
        let all = |first: &String| {
            let branches = (1..8).map(|branch| format!("{first}.{branch}"));
            std::iter::once(first.clone()).chain(branches.collect::<Vec<_>>())
        };
        let ours: Vec<String> = all(&hidden).chain(all(&ingress)).collect();
        let and = |terms: &[&str]| {
            let terms = terms.iter().map(|it| (*it).to_owned());
            ours.iter().cloned().chain(terms).collect::<Vec<_>>()
        };
        assert_eq!(asked(&["front"]), and(&["front"]));
        assert_eq!(asked(&["abcd"]), and(&["abcd"]));
        assert_eq!(asked(&["abcd", "b"]), and(&["abcd", "b"]));
        assert_eq!(asked(&["fron"]), ["fron"]);
        assert_eq!(asked(&[&hidden]), [NOBODY]);
    }

    #[test]
    fn only_filters_change() {
        let change = |target: &str| {
            refiltered(target, |filters| {
                filters.insert("a".to_owned(), vec!["b".to_owned()]);
                Some(())
            })
        };
        let set = "filters=%7B%22a%22%3A%7B%22b%22%3Atrue%7D%7D";
        assert_eq!(
            change("/x?all=1&filters=%7B%7D&y"),
            Some(format!("/x?all=1&y&{set}"))
        );
        assert_eq!(change("/x"), Some(format!("/x?{set}")));
        assert_eq!(change("/x?filters=%5B"), None);
        assert_eq!(refiltered("/x", |_| None), None);
        let read = |text: &str| terms(&serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"["a","b"]"#), read(r#"{"a":true,"b":true}"#));
        assert_eq!((read("1"), read("[1]")), (None, None));
    }
}
