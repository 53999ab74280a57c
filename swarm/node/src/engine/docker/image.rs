//! Fetching of images. Credentials pass through as the client sent them, are never decoded and
//! never shown.

use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptions;
use bollard::{BollardRequest, Docker};
use futures_util::TryStreamExt as _;
use hyper::header::HeaderValue;
use skep_api::Secret;
use skep_core::worker::{OpError, OpOutput, OpResult};

use super::connect::{Client, Link};
use super::ops::Tell;
use super::progress::Progress;
use crate::engine::EngineEvent;

/// What a registry may take for a digest. A client waits for it, and no client waits for longer
/// than twenty seconds.
const REGISTRY: Duration = Duration::from_secs(10);

/// Fetches an image, however long that takes. One that is named by its own id cannot be fetched,
/// and one that is pinned to a digest and there already need not be: it cannot have changed.
pub(super) async fn pull(link: &Link, image: &str, auth: Option<Secret>, tell: &Tell) -> OpResult {
    if is_id(image) {
        return Ok(OpOutput::Done);
    }
    let auth = header(auth)?;
    let (name, tag) = split(image);
    let pinned = tag.contains(':');
    let options = CreateImageOptions {
        from_image: Some(name.to_owned()),
        tag: Some(tag.to_owned()),
        ..CreateImageOptions::default()
    };
    link.call(None, |docker| async move {
        if pinned && docker.inspect_image(image).await.is_ok() {
            return Ok(());
        }
        let said = |text| {
            let image = image.to_owned();
            tell(EngineEvent::Pulling { image, text });
        };
        fetch(authorized(&docker, auth), options, said).await
    })
    .await?;
    Ok(OpOutput::Done)
}

/// `GET /distribution/{image}/json`: the digest that a registry has for an image.
pub(super) async fn digest(
    link: &Link,
    image: &str,
    auth: Option<Secret>,
) -> Result<String, OpError> {
    let auth = header(auth)?;
    let found = link
        .call(Some(REGISTRY), |docker| async move {
            let docker = authorized(&docker, auth);
            docker.inspect_registry_image(image, None).await
        })
        .await?;
    let digest = found.descriptor.digest.unwrap_or_default();
    if is_id(&digest) {
        Ok(digest)
    } else {
        Err(OpError::Failed("the registry tells no digest".to_owned()))
    }
}

/// The engine answers 200 at once; how it went stands in the stream.
async fn fetch(
    docker: Docker,
    options: CreateImageOptions,
    said: impl Fn(String),
) -> Result<(), Error> {
    let mut lines = docker.create_image(Some(options), None, None);
    let mut progress = Progress::new(Instant::now());
    while let Some(line) = lines.try_next().await? {
        if let Some(text) = progress.line(line, Instant::now()) {
            said(text);
        }
    }
    Ok(())
}

fn authorized(client: &Client, auth: Option<HeaderValue>) -> Docker {
    let Some(auth) = auth else {
        return Docker::clone(client);
    };
    client.with(move |mut request: BollardRequest| {
        request
            .headers_mut()
            .insert("X-Registry-Auth", auth.clone());
        request
    })
}

fn header(auth: Option<Secret>) -> Result<Option<HeaderValue>, OpError> {
    let Some(auth) = auth.filter(|auth| !auth.is_empty()) else {
        return Ok(None);
    };
    let mut value = HeaderValue::from_str(&auth).map_err(|_| {
        OpError::Failed(
            "the service's registry credentials cannot be sent: update it with \
             --with-registry-auth"
                .to_owned(),
        )
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Whether an image is named by its own id: an algorithm and as many hex digits as it makes.
fn is_id(image: &str) -> bool {
    let Some((algorithm, hex)) = image.split_once(':') else {
        return false;
    };
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == digits && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A reference as the engine's two parameters: the repository, and a digest, tag or `latest`. A
/// digest outdoes a tag.
fn split(image: &str) -> (&str, &str) {
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let start = named.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if name.len() >= start => (name, tag),
        _ => (named, "latest"),
    };
    (name, digest.unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let table = [
            ("busybox", ("busybox", "latest")),
            ("busybox:v2", ("busybox", "v2")),
            ("registry:5000/busybox", ("registry:5000/busybox", "latest")),
            ("registry:5000/a/b:v2", ("registry:5000/a/b", "v2")),
            ("busybox@sha256:ab", ("busybox", "sha256:ab")),
            ("busybox:v2@sha256:ab", ("busybox", "sha256:ab")),
            ("r:5000/b@sha256:ab", ("r:5000/b", "sha256:ab")),
            ("", ("", "latest")),
            ("a/", ("a/", "latest")),
        ];
        for (image, expected) in table {
            assert_eq!(split(image), expected, "{image}");
        }
    }

    #[test]
    fn ids_are_told_from_names() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(is_id(&format!("sha256:{hex}")));
        for name in [
            format!("busybox@sha256:{hex}"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}", hex.to_uppercase()),
            "sha256:latest".to_owned(),
            hex.clone(),
        ] {
            assert!(!is_id(&name), "{name}");
        }
    }

    #[test]
    fn credentials_do_not_show() {
        let value = header(Some("c2VjcmV0".into())).unwrap().unwrap();
        assert!(!format!("{value:?}").contains("c2V"), "{value:?}");
        assert_eq!(header(Some("".into())), Ok(None));
        let OpError::Failed(text) = header(Some("se\ncret".into())).unwrap_err() else {
            panic!("not refused");
        };
        assert!(!text.contains("cret\""), "{text}");
    }
}
