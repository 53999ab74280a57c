//! Secrets and configs against the texts of the original. Never checks how they reach a container.

use skep_api::container::{ConfigReference, FileTarget, SecretReference};
use skep_api::go::{Base64, Driver};
use skep_api::secret::{ConfigSpec, SecretSpec};
use skep_api::{Error, Kind as ErrorKind};

use crate::Id;
use crate::command::Command;
use crate::control::execute;
use crate::control::testing::{NOW, service, spec, state};
use crate::id::CountingIds;
use crate::object::{ConfigObject, Meta, SecretObject};
use crate::store::{State, Tx};

fn secret(name: &str, data: &[u8]) -> SecretSpec {
    SecretSpec {
        name: name.into(),
        data: Base64(data.to_vec()),
        ..SecretSpec::default()
    }
}

fn config(name: &str, data: &[u8]) -> ConfigSpec {
    ConfigSpec {
        name: name.into(),
        data: Base64(data.to_vec()),
        ..ConfigSpec::default()
    }
}

/// A state with the secret `s1` called `a`, the config `c1` called `b` and services that use them.
fn used_by(services: &[&str]) -> State {
    let a = SecretObject {
        id: Id::from("s1"),
        meta: Meta::default(),
        spec: secret("a", b"old"),
    };
    let b = ConfigObject {
        id: Id::from("c1"),
        meta: Meta::default(),
        spec: config("b", b"old"),
    };
    let services = services.iter().map(|name| {
        let mut service = service(name, name);
        service.spec = using(name, ("s1", "a"), ("c1", "b"));
        service.into()
    });
    state(services.chain([a.into(), b.into()]))
}

fn using(name: &str, secret: (&str, &str), config: (&str, &str)) -> skep_api::service::ServiceSpec {
    let file = Some(FileTarget {
        name: "f".into(),
        ..FileTarget::default()
    });
    let mut spec = spec(name);
    let container = spec.task_template.container_spec.as_mut().unwrap();
    container.secrets = vec![SecretReference {
        file: file.clone(),
        secret_id: secret.0.into(),
        secret_name: secret.1.into(),
    }];
    container.configs = vec![ConfigReference {
        file,
        config_id: config.0.into(),
        config_name: config.1.into(),
        ..ConfigReference::default()
    }];
    spec
}

fn run(view: &mut State, command: Command) -> Result<(), Error> {
    let (changes, author, _) = execute(view, &command, NOW, &mut CountingIds::default())?;
    let tx = Tx {
        author,
        at: NOW,
        changes,
    };
    view.apply(&tx).unwrap();
    Ok(())
}

fn message(outcome: Result<(), Error>) -> String {
    let error = outcome.unwrap_err();
    let words = error.message.strip_prefix("rpc error: code = ");
    words.unwrap_or(&error.message).to_owned()
}

#[test]
fn what_is_no_secret_is_refused() {
    let refused = |spec: SecretSpec| {
        let spec = Box::new(spec);
        message(run(&mut used_by(&[]), Command::CreateSecret { spec }))
    };
    let invalid = "InvalidArgument desc = ";
    let name = format!(
        "{invalid}invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end \
         character must be [a-zA-Z0-9]"
    );
    let size = format!("{invalid}secret data must be larger than 0 and less than 512000 bytes");
    assert_eq!(
        refused(secret("", b"x")),
        format!("{invalid}name must be provided")
    );
    for bad in ["-x", "x-", "a b", ".x", &"x".repeat(65)] {
        assert_eq!(refused(secret(bad, b"x")), name, "{bad}");
    }
    assert_eq!(refused(secret("x", b"")), size);
    assert_eq!(refused(secret("x", &[0; 512_000])), size);
    assert_eq!(
        refused(secret("A", b"x")),
        "AlreadyExists desc = secret A already exists",
        "in any case of letters"
    );
    let mut external = secret("x", b"");
    external.driver = Some(Driver::default());
    assert_eq!(
        refused(external.clone()),
        format!("{invalid}secret driver must have a name")
    );
    external.driver = Some(Driver {
        name: "vault".into(),
        ..Driver::default()
    });
    let spec = Box::new(external);
    let error = run(&mut used_by(&[]), Command::CreateSecret { spec }).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotImplemented);
}

#[test]
fn what_is_no_config_is_refused() {
    let create = |spec: ConfigSpec| {
        let spec = Box::new(spec);
        run(&mut used_by(&[]), Command::CreateConfig { spec })
    };
    let size =
        "InvalidArgument desc = config data must be larger than 0 and less than 1024000 bytes";
    assert_eq!(message(create(config("x", b""))), size);
    assert_eq!(message(create(config("x", &[0; 1_024_000]))), size);
    assert_eq!(
        message(create(config("b", b"x"))),
        "AlreadyExists desc = config b already exists"
    );
    create(config(&"x".repeat(64), &[0; 1_023_999])).unwrap();
    create(config("1.a_b-c", b"x")).unwrap();
}

#[test]
fn only_labels_change() {
    let mut view = used_by(&[]);
    let only = "InvalidArgument desc = only updates to Labels are allowed";
    let mut update = |version: u64, secret_spec: SecretSpec, config_spec: ConfigSpec| {
        let secret = Command::UpdateSecret {
            id: Id::from("s1"),
            version,
            spec: Box::new(secret_spec),
        };
        let config = Command::UpdateConfig {
            id: Id::from("c1"),
            version,
            spec: Box::new(config_spec),
        };
        let of_secret = execute(&view, &secret, NOW, &mut CountingIds::default()).map(drop);
        let of_config = execute(&view, &config, NOW, &mut CountingIds::default()).map(drop);
        assert_eq!(of_secret, of_config);
        if of_secret.is_ok() {
            run(&mut view, secret).unwrap();
        }
        of_secret
    };
    let version = 1;
    for (name, data) in [("z", ""), ("a", "new")] {
        let other = if name == "a" { "b" } else { name };
        let outcome = update(
            version,
            secret(name, data.as_bytes()),
            config(other, data.as_bytes()),
        );
        assert_eq!(message(outcome), only);
    }
    let stale = update(version + 7, secret("a", b""), config("b", b""));
    assert_eq!(message(stale), "Unknown desc = update out of sequence");
    let mut labelled = secret("a", b"old");
    labelled.labels.insert("k".into(), "v".into());
    update(version, labelled, config("b", b"")).unwrap();
    let after = view.secrets().get("s1").unwrap();
    assert_eq!(
        (after.spec.labels.len(), &*after.spec.data),
        (1, &b"old"[..])
    );
}

/// Updates `s1` and `c1` in the same way: with these labels and data.
fn update_both(view: &mut State, autoroll: &str, data: &[u8]) -> Result<(), Error> {
    let labels = [("skep.autoroll".to_owned(), autoroll.to_owned())];
    let mut new = secret("a", data);
    new.labels = labels.clone().into();
    let version = view.secrets().get("s1").unwrap().meta.version;
    let first = run(
        view,
        Command::UpdateSecret {
            id: Id::from("s1"),
            version,
            spec: Box::new(new),
        },
    );
    let mut new = config("b", data);
    new.labels = labels.into();
    let version = view.configs().get("c1").unwrap().meta.version;
    let second = run(
        view,
        Command::UpdateConfig {
            id: Id::from("c1"),
            version,
            spec: Box::new(new),
        },
    );
    assert_eq!(first.is_ok(), second.is_ok());
    first
}

#[test]
fn with_the_label_data_changes_in_place() {
    let mut view = used_by(&["db", "web"]);
    let other = service("other", "other");
    let tx = Tx {
        author: crate::store::Author::Control,
        at: NOW,
        changes: vec![crate::store::Change::Create(other.into())],
    };
    view.apply(&tx).unwrap();
    let rolls = |view: &State| {
        let services = view.services().iter();
        services.map(|service| service.roll).collect::<Vec<_>>()
    };
    let only = "InvalidArgument desc = only updates to Labels are allowed";
    assert_eq!(message(update_both(&mut view, "false", b"new")), only);
    assert_eq!(message(update_both(&mut view, "yes", b"new")), only);
    assert_eq!(
        message(update_both(&mut view, "yes", b"")),
        "label skep.autoroll: \"yes\" is neither true nor false"
    );
    let size = "secret data must be larger than 0 and less than 512000 bytes";
    let huge = vec![0; 1_024_000];
    assert!(message(update_both(&mut view, "true", &huge)).ends_with(size));
    for same in [&b""[..], b"old"] {
        update_both(&mut view, "true", same).unwrap();
        assert_eq!(rolls(&view), [0, 0, 0], "nothing is new");
    }
    update_both(&mut view, "true", b"new").unwrap();
    let data = |view: &State| view.secrets().get("s1").unwrap().spec.data.clone();
    assert_eq!(&*data(&view), b"new");
    assert_eq!(&*view.configs().get("c1").unwrap().spec.data, b"new");
    assert_eq!(
        rolls(&view),
        [2, 0, 2],
        "in the order of ids: db, other, web"
    );
    assert_eq!(
        message(update_both(&mut view, "false", b"newer")),
        only,
        "the label was taken away again"
    );
    let stale = Command::UpdateSecret {
        id: Id::from("s1"),
        version: 1,
        spec: Box::new(SecretSpec {
            labels: [("skep.autoroll".to_owned(), "true".to_owned())].into(),
            ..secret("a", b"stale")
        }),
    };
    let words = message(run(&mut view, stale));
    assert_eq!(words, "Unknown desc = update out of sequence");
    assert_eq!(&*data(&view), b"new");
}

#[test]
fn what_is_used_stays() {
    for (services, words) in [
        (&["web"][..], "service: web"),
        (&["db", "web"], "services: db, web"),
    ] {
        let mut view = used_by(services);
        let id = Id::from("s1");
        assert_eq!(
            message(run(&mut view, Command::RemoveSecret { id })),
            format!("InvalidArgument desc = secret 'a' is in use by the following {words}")
        );
        let id = Id::from("c1");
        assert_eq!(
            message(run(&mut view, Command::RemoveConfig { id })),
            format!("InvalidArgument desc = config 'b' is in use by the following {words}")
        );
    }
    let mut view = used_by(&[]);
    let id = Id::from("s1");
    run(&mut view, Command::RemoveSecret { id: id.clone() }).unwrap();
    assert_eq!(
        message(run(&mut view, Command::RemoveSecret { id })),
        "NotFound desc = secret s1 not found"
    );
    let id = Id::from("c1");
    run(&mut view, Command::RemoveConfig { id }).unwrap();
    assert!(view.secrets().is_empty() && view.configs().is_empty());
}

#[test]
fn nobody_goes_back_to_what_is_gone() {
    let mut web = service("web", "web");
    web.previous_spec = Some(using("web", ("s1", "a"), ("c1", "b")));
    web.previous_spec_version = Some(0);
    let mut view = state([web.into()]);
    let rollback = Command::UpdateService {
        id: Id::from("web"),
        version: 1,
        spec: Box::new(spec("web")),
        registry_auth: None,
        auth_from: Default::default(),
        rollback: true,
    };
    let text = "InvalidArgument desc = secret not found: a";
    assert_eq!(message(run(&mut view, rollback)), text);
}

#[test]
fn references_name_what_exists() {
    let view = used_by(&[]);
    let check = |secret, config| {
        super::references(&view, &using("web", secret, config)).map_err(|error| error.message)
    };
    assert_eq!(check(("s1", "a"), ("c1", "b")), Ok(()));
    for (secret, config, words) in [
        (("s1", "A"), ("c1", "b"), "secret not found: A"),
        (("s2", "a"), ("c2", "b"), "secret not found: a"),
        (("s1", "a"), ("c1", "x"), "config not found: x"),
    ] {
        let text = format!("rpc error: code = InvalidArgument desc = {words}");
        assert_eq!(check(secret, config), Err(text));
    }
    let mut two = using("web", ("s2", "x"), ("c1", "b"));
    let container = two.task_template.container_spec.as_mut().unwrap();
    let mut more = container.secrets.clone();
    more[0].secret_name = "y".into();
    container.secrets.append(&mut more);
    let error = super::references(&view, &two).unwrap_err();
    assert!(error.message.ends_with("secrets not found: x, y"));
}
