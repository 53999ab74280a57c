//! The table of routes: what is owned, what is rewritten, and what is left alone. No sockets.

use super::*;

fn look_up(method: &str, target: &str) -> Route {
    route(&method.parse().unwrap(), &Target::parse(target))
}

#[test]
fn targets_come_apart() {
    let table = [
        ("/v1.41/info?a=b", Some((1, 41)), "/info", "a=b"),
        ("/info", None, "/info", ""),
        ("/volumes/v1.2/x", None, "/volumes/v1.2/x", ""),
        ("/v1.41", None, "/v1.41", ""),
        ("/vx/info", None, "/vx/info", ""),
        ("/1.41/info", None, "/1.41/info", ""),
        ("/vv1.41/info", None, "/vv1.41/info", ""),
        ("http://docker/v1.24/nodes", Some((1, 24)), "/nodes", ""),
        ("http://docker", None, "/", ""),
        (
            "/images/create?fromSrc=http://x/y",
            None,
            "/images/create",
            "fromSrc=http://x/y",
        ),
    ];
    for (target, version, path, query) in table {
        let version = version.map(|(major, minor)| ApiVersion::new(major, minor));
        assert_eq!(
            Target::parse(target),
            Target {
                version,
                path,
                query
            },
            "{target}"
        );
    }
}

#[test]
fn containers_are_made_in_two_languages() {
    let of = |target: &str| route(&Method::POST, &Target::parse(target));
    for target in ["/containers/create", "/v1.41/containers/create?name=c"] {
        assert_eq!(of(target), Route::Makes, "{target}");
    }
    for prefix in ["", "/v4.0.0", "/v1.41"] {
        let target = format!("{prefix}/libpod/containers/create");
        assert_eq!(of(&target), Route::MakesAsPodman, "{target}");
    }
    let other = of("/v4.0.0/libpod/containers/c/start");
    assert_eq!(other, Route::Forwarded);
}

#[test]
fn swarm_routes_are_owned() {
    let id = || "web".to_owned();
    let table = [
        ("GET", "/swarm", Owned::SwarmInspect),
        ("GET", "/skep/backup", Owned::Backup),
        ("POST", "/v1.41/swarm/init", Owned::SwarmInit),
        ("POST", "/swarm/leave?force=1", Owned::SwarmLeave),
        ("GET", "/v1.30/services?filters=%7B%7D", Owned::ServiceList),
        ("GET", "/services/web", Owned::ServiceInspect { id: id() }),
        ("GET", "/services/w%65b", Owned::ServiceInspect { id: id() }),
        (
            "GET",
            "/services/web/logs?follow=1",
            Owned::ServiceLogs { id: id() },
        ),
        (
            "POST",
            "/services/web/update?version=3",
            Owned::ServiceUpdate { id: id() },
        ),
        (
            "DELETE",
            "/nodes/web?force=1",
            Owned::NodeRemove { id: id() },
        ),
        ("GET", "/tasks/web", Owned::TaskInspect { id: id() }),
        (
            "DELETE",
            "/v1.41/secrets/web",
            Owned::SecretRemove { id: id() },
        ),
        ("POST", "/configs/create", Owned::ConfigCreate),
    ];
    for (method, target, owned) in table {
        assert_eq!(
            look_up(method, target),
            Route::Owned(owned),
            "{method} {target}"
        );
    }
}

#[test]
fn the_rest_is_the_engines() {
    let table = [
        ("POST", "/containers/json"),
        ("PUT", "/services/web"),
        ("HEAD", "/services"),
        ("GET", "//services"),
        ("GET", "/services/"),
        ("GET", "/services/a%2Fb"),
        ("GET", "/services/%zz"),
        ("GET", "/services/.."),
        ("POST", "/services"),
        ("GET", "/v1.41/v1.41/services"),
        ("GET", "*"),
        ("GET", ""),
    ];
    for (method, target) in table {
        assert_eq!(
            look_up(method, target),
            Route::Forwarded,
            "{method} {target}"
        );
    }
    assert_eq!(
        look_up("GET", "/v1.41/containers/json?all=1"),
        Route::Named(Named::Containers)
    );
    assert_eq!(look_up("HEAD", "/_ping"), Route::Rewritten(Rewrite::Ping));
    assert_eq!(
        look_up("GET", "/v1.41/info"),
        Route::Rewritten(Rewrite::Info)
    );
    assert_eq!(
        look_up("GET", "/events?since=1"),
        Route::Rewritten(Rewrite::Events)
    );
}
