//! A certificate authority outside of the swarm: signs in cfssl's protocol, over TLS, for clients
//! that show a certificate of a root it knows. Small, real, and for tests only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use skep_node::pki::{Leaf, Role, RootCa, verify};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A running authority.
pub struct Authority {
    /// Its root. The cluster is told the certificate only.
    pub root: RootCa,
    pub addr: SocketAddr,
    /// Leaves and cross-signed certificates that it has signed.
    pub leaves: Arc<AtomicUsize>,
    pub crosses: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Authority {
    /// Starts one that signs for clients with certificates of `clients` (PEM roots) or of its own.
    pub async fn start(clients: &str) -> Self {
        let root = RootCa::create(SystemTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(&root, clients)));
        let (leaves, crosses) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (own, counts) = (root.clone(), (leaves.clone(), crosses.clone()));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, root, counts) = (acceptor.clone(), own.clone(), counts.clone());
                tokio::spawn(async move { serve(acceptor, tcp, root, counts).await });
            }
        });
        Self {
            root,
            addr,
            leaves,
            crosses,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}/api/v1/cfssl/sign", self.addr)
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

fn tls(root: &RootCa, clients: &str) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let cert = params.signed_by(&key, &issuer(root)).unwrap();
    let mut roots = RootCertStore::empty();
    for pem in [clients, &root.cert_pem] {
        for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), verify::provider()).build();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(verify::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap()
}

fn issuer(root: &RootCa) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(root.key_pem.as_ref().unwrap()).unwrap();
    Issuer::from_ca_cert_pem(&root.cert_pem, key).unwrap()
}

async fn serve(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    root: RootCa,
    counts: (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let Ok(mut stream) = acceptor.accept(tcp).await else {
        return;
    };
    let Some((head, body)) = request(&mut stream).await else {
        return;
    };
    assert!(
        head.starts_with("POST /api/v1/cfssl/sign HTTP/1.1"),
        "{head}"
    );
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let pem = if asked["profile"] == "CA" {
        counts.1.fetch_add(1, Ordering::Relaxed);
        cross(&root, &asked)
    } else {
        counts.0.fetch_add(1, Ordering::Relaxed);
        leaf(&root, &asked)
    };
    let answer = json!({
        "success": true, "result": {"certificate": pem}, "errors": [], "messages": []
    })
    .to_string();
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Head and body of one request.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let named = name.eq_ignore_ascii_case("content-length");
                named.then(|| value.trim().parse::<usize>().ok())?
            })?;
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes[end + 4..].to_vec()));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn leaf(root: &RootCa, asked: &Value) -> String {
    let name = &asked["subject"]["names"][0];
    let role = match name["OU"].as_str().unwrap() {
        "swarm-manager" => Role::Manager,
        "swarm-worker" => Role::Worker,
        other => panic!("{other}"),
    };
    let leaf = Leaf {
        node_id: asked["subject"]["CN"].as_str().unwrap(),
        role,
        cluster_id: name["O"].as_str().unwrap(),
    };
    assert_eq!(asked["hosts"][0], name["OU"]);
    let csr = asked["certificate_request"].as_str().unwrap();
    root.sign(csr, &leaf, YEAR, SystemTime::now()).unwrap()
}

fn cross(root: &RootCa, asked: &Value) -> String {
    let csr = asked["certificate_request"].as_str().unwrap();
    let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
    let name = asked["subject"]["CN"].as_str().unwrap();
    let names = &request.params.distinguished_name;
    assert!(
        names
            .get(&DnType::CommonName)
            .is_some_and(|own| *own == rcgen::DnValue::from(name))
    );
    assert_eq!(asked["extensions"][0]["id"], "2.5.29.19");
    request.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    request.params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    request.signed_by(&issuer(root)).unwrap().pem()
}
