//! Authorities outside of the swarm: asks them for signatures in cfssl's protocol, over TLS with
//! this manager's own certificate. Trusts only what the root that they sign for vouches for, and
//! never trusts an answer without looking at it.
//!
//! Source of the behaviour: swarmkit `ca/external.go`; cfssl `doc/api/endpoint_sign.txt`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use skep_api::cluster::ExternalCa;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use crate::pki::verify::{provider, roots_in};
use crate::pki::{self, Identity, Leaf, PkiError, RootCa};

/// How long one authority may take in all, as in the original.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer holds one certificate or a few words.
const MAX_ANSWER: usize = 256 << 10;
/// The signing profile that authorities have for cross-signed certificates, as in the original.
const CROSS_SIGN_PROFILE: &str = "CA";
/// The object identifier of the extension that makes a certificate one of an authority.
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
/// DER of `BasicConstraints { CA: TRUE }`, in hex.
const IS_CA: &str = "30030101ff";

/// What an authority is asked: cfssl's `sign` request.
#[derive(Debug, Serialize)]
pub(super) struct SignRequest {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    certificate_request: String,
    subject: Subject,
    #[serde(skip_serializing_if = "str::is_empty")]
    profile: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension>,
}

#[derive(Debug, Serialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    names: Vec<Name>,
}

#[derive(Debug, Serialize)]
struct Name {
    #[serde(rename = "OU", skip_serializing_if = "String::is_empty")]
    unit: String,
    #[serde(rename = "O", skip_serializing_if = "String::is_empty")]
    organization: String,
}

#[derive(Debug, Serialize)]
struct Extension {
    id: &'static str,
    critical: bool,
    value: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    result: Option<Signed>,
    #[serde(default)]
    errors: Option<Vec<Complaint>>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    message: String,
}

/// Authorities that sign for one root, and as whom to ask them.
pub(super) struct Externals<'a> {
    pub urls: Vec<&'a str>,
    /// The root that they sign for and that their own certificates lead to.
    pub root: &'a RootCa,
    /// This manager's own certificate.
    pub me: Option<&'a Identity>,
}

impl<'a> Externals<'a> {
    pub fn new(found: &[&'a ExternalCa], root: &'a RootCa, me: Option<&'a Identity>) -> Self {
        let urls = found.iter().map(|external| external.url.as_str()).collect();
        Self { urls, root, me }
    }

    /// Whether one of them answers with a certificate of the right root.
    pub async fn reachable(&self) -> bool {
        for url in &self.urls {
            match self.connect(url).await {
                Ok(_) => return true,
                Err(error) => warn!(url, %error, "an external CA is unreachable or not valid"),
            }
        }
        false
    }

    /// A node's certificate, checked: its names, its key and its issuer.
    pub async fn sign(&self, csr_pem: &str, leaf: &Leaf<'_>) -> Result<String, PkiError> {
        let request = SignRequest {
            hosts: pki::hosts(leaf).into_iter().map(str::to_owned).collect(),
            certificate_request: csr_pem.to_owned(),
            subject: Subject {
                common_name: leaf.node_id.to_owned(),
                names: vec![Name {
                    unit: pki::ou(leaf.role).to_owned(),
                    organization: leaf.cluster_id.to_owned(),
                }],
            },
            profile: "",
            extensions: Vec::new(),
        };
        self.first(&request, |pem| {
            self.root.check_leaf(csr_pem, leaf, pem, SystemTime::now())
        })
        .await
    }

    /// A certificate for `next` by the root that these authorities sign for, checked.
    pub async fn cross_sign(&self, next: &RootCa) -> Result<String, PkiError> {
        let request = SignRequest {
            hosts: Vec::new(),
            certificate_request: next.cross_request(SystemTime::now())?,
            subject: Subject {
                common_name: next.common_name()?,
                names: Vec::new(),
            },
            profile: CROSS_SIGN_PROFILE,
            extensions: vec![Extension {
                id: BASIC_CONSTRAINTS,
                critical: true,
                value: IS_CA,
            }],
        };
        self.first(&request, |pem| self.root.check_cross_signed(next, pem))
            .await
    }

    /// The first answer that passes the check, of one after the other.
    async fn first(
        &self,
        request: &SignRequest,
        check: impl Fn(&str) -> Result<(), PkiError>,
    ) -> Result<String, PkiError> {
        let body = serde_json::to_vec(request).map_err(|error| failed(&error))?;
        let mut last = PkiError::invalid("no external CA is configured");
        for url in &self.urls {
            let asked = tokio::time::timeout(TIMEOUT, self.ask(url, body.clone())).await;
            let asked = asked.unwrap_or_else(|_| Err(failed(&"it did not answer in time")));
            match asked.and_then(|pem| check(&pem).map(|()| pem)) {
                Ok(pem) => return Ok(with_newline(pem)),
                Err(error) => {
                    warn!(url, %error, "an external CA did not sign");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn ask(&self, url: &str, body: Vec<u8>) -> Result<String, PkiError> {
        let (uri, tls) = self.connect(url).await?;
        let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(
                header::HOST,
                uri.authority().map_or("", |host| host.as_str()),
            )
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| failed(&error))?;
        let driving = tokio::spawn(connection);
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        driving.abort();
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        certificate_in(status, &body)
    }

    /// A connection with one authority, whose certificate the root vouches for.
    async fn connect(&self, url: &str) -> Result<(Uri, TlsStream<TcpStream>), PkiError> {
        let uri: Uri = url.parse().map_err(|error| failed(&error))?;
        let host = uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err(failed(&"its URL must begin with https://"));
        }
        let port = uri.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.clone()).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let connected = async {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            connector.connect(name, tcp).await
        };
        match tokio::time::timeout(TIMEOUT, connected).await {
            Ok(Ok(tls)) => Ok((uri, tls)),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"it cannot be reached in time")),
        }
    }

    fn tls(&self) -> Result<ClientConfig, PkiError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_root_certificates(roots_in(&self.root.cert_pem)?);
        match self.me {
            Some(me) => builder
                .with_client_auth_cert(me.chain().to_vec(), me.key()?)
                .map_err(|error| failed(&error)),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

/// The certificate in an answer, or the authority's own words for why there is none.
fn certificate_in(status: StatusCode, body: &[u8]) -> Result<String, PkiError> {
    let answer = serde_json::from_slice::<Answer>(body);
    match answer {
        Ok(Answer {
            success: true,
            result: Some(signed),
            ..
        }) if status == StatusCode::OK => Ok(signed.certificate),
        Ok(Answer { errors, .. }) => {
            let texts: Vec<String> = errors
                .unwrap_or_default()
                .into_iter()
                .map(|error| error.message)
                .collect();
            Err(failed(&format!("{status}: {}", texts.join("; "))))
        }
        Err(_) => Err(failed(&format!("{status}, not in cfssl's form"))),
    }
}

fn with_newline(pem: String) -> String {
    match pem.ends_with('\n') {
        true => pem,
        false => pem + "\n",
    }
}

fn failed(error: &impl std::fmt::Display) -> PkiError {
    PkiError::invalid(format!("the external CA: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let ok = br#"{"success":true,"result":{"certificate":"PEM"},"errors":[],"messages":[]}"#;
        assert_eq!(certificate_in(StatusCode::OK, ok).unwrap(), "PEM");
        for (status, body, text) in [
            (StatusCode::BAD_GATEWAY, &ok[..], "502 Bad Gateway"),
            (
                StatusCode::OK,
                br#"{"success":false,"result":null,"errors":[{"code":1,"message":"no"}]}"#,
                "200 OK: no",
            ),
            (StatusCode::OK, br#"{"success":true}"#, "200 OK"),
            (StatusCode::OK, b"hello", "not in cfssl's form"),
        ] {
            let error = certificate_in(status, body).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
