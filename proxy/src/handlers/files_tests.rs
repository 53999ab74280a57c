//! Secrets and configs through the table of routes, as clients meet them.

use http::StatusCode;
use serde_json::{Value, json};

use super::Handlers;
use super::fake::Fake;
use super::tests::send;

/// Creates a secret and a config called `name`; their ids.
async fn create(handlers: &Handlers<Fake>, name: &str, labels: Value) -> [String; 2] {
    let spec = json!({"Name": name, "Labels": labels, "Data": "aGlkZGVu"}).to_string();
    let mut ids = [String::new(), String::new()];
    for (noun, id) in ["secret", "config"].iter().zip(&mut ids) {
        let (status, body) = send(handlers, "POST", &format!("/{noun}s/create"), &spec).await;
        assert_eq!(status, StatusCode::CREATED);
        *id = body["ID"].as_str().unwrap().to_owned();
    }
    ids
}

#[tokio::test]
async fn both_live() {
    let handlers = Handlers::new(Fake::manager());
    let ids = create(&handlers, "one", json!({"a": "b"})).await;
    for (noun, id) in ["secret", "config"].iter().zip(ids) {
        for input in [&*id, "one", "ONE", &id[..12]] {
            let (status, body) = send(&handlers, "GET", &format!("/{noun}s/{input}"), "").await;
            assert_eq!((status, &body["ID"]), (StatusCode::OK, &json!(id)));
        }
        let (_, body) = send(&handlers, "GET", &format!("/{noun}s/one"), "").await;
        let data = (*noun == "config").then_some("aGlkZGVu");
        assert_eq!(body["Spec"].get("Data").and_then(Value::as_str), data);
        let version = &body["Version"]["Index"];
        let update = format!("/{noun}s/one/update?version={version}");
        let labels = json!({"Name": "one", "Data": "aGlkZGVu", "Labels": {"c": "d"}}).to_string();
        let (status, body) = send(&handlers, "POST", &update, &labels).await;
        assert_eq!((status, body), (StatusCode::OK, json!("")));
        let (status, body) = send(&handlers, "POST", &update, &labels).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
        let (_, body) = send(&handlers, "GET", &format!("/{noun}s"), "").await;
        assert_eq!(body[0]["Spec"]["Labels"], json!({"c": "d"}));
        assert_eq!(body.to_string().contains("aGlkZGVu"), *noun == "config");
        let (status, _) = send(&handlers, "DELETE", &format!("/{noun}s/one"), "").await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        let (_, body) = send(&handlers, "GET", &format!("/{noun}s"), "").await;
        assert_eq!(body, json!([]));
    }
}

/// Updates a secret or a config to this spec, in the version that it has.
async fn update(
    handlers: &Handlers<Fake>,
    noun: &str,
    name: &str,
    spec: &Value,
) -> (StatusCode, Value) {
    let (_, body) = send(handlers, "GET", &format!("/{noun}s/{name}"), "").await;
    let version = &body["Version"]["Index"];
    let target = format!("/{noun}s/{name}/update?version={version}");
    send(handlers, "POST", &target, &spec.to_string()).await
}

#[tokio::test]
async fn with_a_label_data_changes_in_place_and_services_follow() {
    let handlers = Handlers::new(Fake::manager());
    let [secret, config] = create(&handlers, "one", json!({})).await;
    let file = json!({"Name": "f", "UID": "0", "GID": "0", "Mode": 292});
    let spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {
        "Image": "busybox",
        "Secrets": [{"SecretID": secret, "SecretName": "one", "File": file}],
        "Configs": [{"ConfigID": config, "ConfigName": "one", "File": file}],
    }}});
    let (status, body) = send(&handlers, "POST", "/services/create", &spec.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let version = async || {
        let (_, body) = send(&handlers, "GET", "/services/web", "").await;
        assert!(body.get("PreviousSpec").is_none(), "the spec stays");
        body["Version"]["Index"].as_u64()
    };
    for noun in ["secret", "config"] {
        let before = version().await;
        let mut spec = json!({"Name": "one", "Data": "bmV3"});
        let (status, body) = update(&handlers, noun, "one", &spec).await;
        let text = "rpc error: code = InvalidArgument desc = only updates to Labels are allowed";
        assert_eq!(
            (status, &body["message"]),
            (StatusCode::BAD_REQUEST, &json!(text))
        );
        assert_eq!(version().await, before);
        spec["Labels"] = json!({"skep.autoroll": "true"});
        let (status, body) = update(&handlers, noun, "one", &spec).await;
        assert_eq!((status, body), (StatusCode::OK, json!("")));
        assert!(version().await > before, "the service is written with it");
        let (_, body) = send(&handlers, "GET", &format!("/{noun}s/one"), "").await;
        let data = (noun == "config").then_some("bmV3");
        assert_eq!(body["Spec"].get("Data").and_then(Value::as_str), data);
    }
    let spec = json!({"Name": "two", "Data": "bmV3", "Labels": {"skep.autoroll": "1"}});
    let (status, body) = send(&handlers, "POST", "/configs/create", &spec.to_string()).await;
    let text = "label skep.autoroll: \"1\" is neither true nor false";
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::BAD_REQUEST, &json!(text))
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let handlers = Handlers::new(Fake::manager());
    let ids = create(&handlers, "one", json!({"a": "b"})).await;
    create(&handlers, "two", json!({"a": "c"})).await;
    create(&handlers, "Only", json!({})).await;
    for (index, noun) in ["secret", "config"].iter().enumerate() {
        let id = &ids[index];
        let table = [
            (json!({"name": ["o"]}), Some(2)),
            (json!({"name": ["on", "tw"]}), Some(3)),
            (json!({"id": [id], "name": ["two"]}), Some(2)),
            (json!({"label": ["a"]}), Some(2)),
            (json!({"label": ["a=b"], "name": ["t"]}), Some(0)),
            (json!({"label": ["a=b", "a"]}), Some(1)),
            (json!({"bad": ["x"]}), None),
        ];
        for (filters, count) in table {
            let target = format!("/{noun}s?filters={filters}").replace('"', "%22");
            let (status, body) = send(&handlers, "GET", &target, "").await;
            assert_eq!(status.is_success(), count.is_some(), "{filters}: {body}");
            assert_eq!(body.as_array().map(Vec::len), count, "{filters}");
        }
        // Names in full are only known for secrets.
        let target = format!("/{noun}s?filters={{%22names%22:[%22ONE%22]}}");
        let (status, body) = send(&handlers, "GET", &target, "").await;
        match *noun {
            "secret" => assert_eq!(body.as_array().map(Vec::len), Some(1)),
            _ => assert_eq!(
                (status, &body["message"]),
                (StatusCode::BAD_REQUEST, &json!("invalid filter 'names'"))
            ),
        }
    }
}

#[tokio::test]
async fn templates_are_newer_than_some_clients() {
    let handlers = Handlers::new(Fake::manager());
    let spec = r#"{"Name":"t","Data":"eA==","Templating":{"Name":"golang"}}"#;
    for noun in ["secret", "config"] {
        let old = format!("/v1.36/{noun}s/create");
        let (status, body) = send(&handlers, "POST", &old, spec).await;
        let text = format!("{noun} templating is not supported on the specified API version: 1.36");
        assert_eq!(
            (status, &body["message"]),
            (StatusCode::BAD_REQUEST, &json!(text))
        );
        let (status, _) = send(&handlers, "POST", &format!("/v1.37/{noun}s/create"), spec).await;
        assert_eq!(status, StatusCode::CREATED);
    }
}
