//! The swarm itself: its first transaction and the updates of its spec, its tokens, its unlock key
//! and its root, whose rotations begin and are called off here. Never makes a root or a key for
//! one: the manager that takes a request brings them. Never signs anything.

use skep_api::cluster::Spec;
use skep_api::{Code, Error};

use super::{Outcome, in_sequence};
use crate::allocator::subnets;
use crate::ca;
use crate::command::Reply;
use crate::id::IdSource;
use crate::network::first_networks;
use crate::object::{Cluster, Node, Rotation, Secret};
use crate::store::{Author, Change, State};
use crate::unlock_key;
use crate::validate::{check_cluster, check_protocols, missing};

/// What is made anew.
#[derive(Clone, Copy)]
pub(super) struct Rotate<'a> {
    pub worker: bool,
    pub manager: bool,
    pub unlock_key: bool,
    pub root: Option<&'a Rotation>,
}

pub(super) fn bootstrap(
    view: &State,
    cluster: &Cluster,
    node: &Node,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    if view.cluster().is_some() {
        return Err(Error::rpc(Code::AlreadyExists, "there is a swarm already"));
    }
    check_protocols(&cluster.spec)?;
    check_cluster(&cluster.spec)?;
    if !cluster.spec.ca_config.signing_ca_cert.is_empty() {
        return Err(missing("a signing CA certificate of one's own at init"));
    }
    let mut cluster = cluster.clone();
    let auto_lock = cluster.spec.encryption_config.auto_lock_managers;
    cluster.unlock_key = unlock_key::updated(None, auto_lock, false, ids);
    let id = cluster.id.clone();
    let networks = first_networks(subnets::choose(&cluster, Vec::new()), ids);
    let mut changes = vec![
        Change::Create(cluster.into()),
        Change::Create(node.clone().into()),
    ];
    changes.extend(networks.into_iter().map(|it| Change::Create(it.into())));
    Ok((changes, Author::Ca, Reply::Created(id)))
}

pub(super) fn update(
    view: &State,
    version: u64,
    spec: &Spec,
    rotate: Rotate<'_>,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    check_cluster(spec)?;
    let Some(cluster) = view.cluster() else {
        return Err(Error::rpc(Code::NotFound, "cluster not found"));
    };
    let root_ca = ca::updated(cluster, &spec.ca_config, rotate.root)?;
    in_sequence(&cluster.meta, version)?;
    let mut cluster = cluster.as_ref().clone();
    cluster.spec = spec.clone();
    cluster.spec.ca_config = ca::stored(&spec.ca_config);
    cluster.root_ca = root_ca;
    if rotate.worker {
        cluster.join_tokens.worker = rotated(&cluster.join_tokens.worker, ids);
    }
    if rotate.manager {
        cluster.join_tokens.manager = rotated(&cluster.join_tokens.manager, ids);
    }
    let auto_lock = cluster.spec.encryption_config.auto_lock_managers;
    let key = cluster.unlock_key.as_ref();
    cluster.unlock_key = unlock_key::updated(key, auto_lock, rotate.unlock_key, ids);
    Ok((
        vec![Change::Update(cluster.into())],
        Author::Control,
        Reply::Done,
    ))
}

/// The same token with a new secret: its first parts name the format and the root certificate.
fn rotated(token: &Secret, ids: &mut dyn IdSource) -> Secret {
    let kept = token.rsplit_once('-').map_or("", |(kept, _)| kept);
    ca::token(kept, ids)
}

#[cfg(test)]
mod tests {
    use skep_api::Kind;

    use super::*;
    use crate::command::Command;
    use crate::control::testing::{cluster, node, run, state};
    use crate::object::Object;

    fn update(
        change: impl Fn(&mut Spec),
        version: u64,
        rotate_worker_token: bool,
    ) -> Result<Outcome, Error> {
        let view = state([cluster().into()]);
        let mut spec = cluster().spec;
        change(&mut spec);
        let spec = Box::new(spec);
        let command = Command::UpdateCluster {
            version,
            spec,
            rotate_worker_token,
            rotate_manager_token: false,
            rotate_unlock_key: false,
            new_root: None,
        };
        run(&view, &command)
    }

    #[test]
    fn the_first_transaction_is_the_only_one() {
        let command = Command::Bootstrap {
            cluster: cluster().into(),
            node: node("n1", "a").into(),
        };
        // The cluster, its node, and the networks that every swarm has.
        assert_eq!(run(&State::default(), &command).unwrap().0.len(), 5);
        let error = run(&state([cluster().into()]), &command).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
    }

    #[test]
    fn a_token_keeps_its_digest() {
        let (changes, _, _) = update(|_| (), 1, true).unwrap();
        let [Change::Update(Object::Cluster(after))] = changes.as_slice() else {
            panic!()
        };
        let token = &after.join_tokens.worker;
        let (kept, secret) = token.rsplit_once('-').unwrap();
        assert_eq!(kept, "SWMTKN-1-d");
        assert_eq!(secret.len(), 25);
        assert_eq!(after.join_tokens.manager, cluster().join_tokens.manager);
    }

    #[test]
    fn autolock_comes_with_a_key_from_the_first_transaction_on() {
        let after = |result: Result<Outcome, Error>| {
            let (changes, _, _) = result.unwrap();
            match changes.into_iter().next() {
                Some(Change::Create(Object::Cluster(it)) | Change::Update(Object::Cluster(it))) => {
                    it
                }
                other => panic!("{other:?}"),
            }
        };
        let founded = |auto_lock| {
            let mut cluster = cluster();
            cluster.spec.encryption_config.auto_lock_managers = auto_lock;
            let node = node("n1", "a").into();
            let cluster = cluster.into();
            after(run(
                &State::default(),
                &Command::Bootstrap { cluster, node },
            ))
        };
        assert_eq!(founded(false).unlock_key, None);
        assert!(founded(true).unlock_key.is_some());
        let on = update(
            |spec| spec.encryption_config.auto_lock_managers = true,
            1,
            false,
        );
        let on = after(on);
        assert!(on.unlock_key.is_some());
        let shown = serde_json::to_string(&crate::wire::swarm(&on)).unwrap();
        let told = serde_json::to_string(&crate::wire::cluster_info(&on)).unwrap();
        for text in [shown, told] {
            assert!(
                !text.contains("SWMKEY") && text.contains("AutoLockManagers\":true"),
                "{text}"
            );
        }
        assert_eq!(after(update(|_| (), 1, false)).unlock_key, None);
    }

    #[test]
    fn refusals() {
        let text = |result: Result<Outcome, Error>| result.unwrap_err().message;
        assert_eq!(
            text(update(|_| (), 7, false)),
            "rpc error: code = Unknown desc = update out of sequence"
        );
        assert_eq!(
            text(update(|spec| spec.name = "x".into(), 1, false)),
            "rpc error: code = InvalidArgument desc = modification of cluster name is not allowed"
        );
    }
}
