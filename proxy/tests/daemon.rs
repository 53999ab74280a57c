//! Limits, the graceful stop, TLS, and the process itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Harness, LONG, Peer, Setup, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn malformed_and_oversized_heads_are_refused() {
    let mut harness = Harness::new();
    harness.stop_engine();
    let long = format!("GET /a HTTP/1.1\r\nA: {}", "x".repeat(1 << 20));
    let many = format!("GET /a HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(600));
    let table = [
        ("nonsense\r\n\r\n", "400", "malformed HTTP head"),
        (
            "GET /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400",
            "Content-Length",
        ),
        (
            "GET /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501",
            "Transfer-Encoding",
        ),
        (&long, "431", "1 MiB"),
        (&many, "431", "header lines"),
    ];
    for (request, status, text) in table {
        let mut client = harness.client();
        client.send(request);
        let (head, body) = client.reply();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(body.contains(text), "{body}");
        client.expect_end();
    }
}

#[test]
fn too_many_clients_are_told_so() {
    let mut harness = Harness::with(Setup {
        limit: 2,
        ..Setup::default()
    });
    let mut first = harness.client();
    first.send("GET /a HTTP/1.1\r\n\r\n");
    harness.accept().send(OK);
    first.expect(OK);
    let second = harness.client();
    harness.stop_engine();
    let mut third = harness.client();
    let (head, body) = third.reply();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.contains("serves 2 connections already"), "{body}");
    drop((first, second));
    wait_for("there is room again", || {
        let mut client = harness.client();
        client.send("GET /swarm HTTP/1.1\r\n\r\n");
        client.reply().1.contains("swarm manager")
    });
}

#[test]
fn requests_at_hand_finish_before_the_end() {
    let mut harness = Harness::new();
    let mut idle = harness.client();
    idle.send("GET /a HTTP/1.1\r\n\r\n");
    harness.accept().send(OK);
    idle.expect(OK);
    let mut busy = harness.client();
    busy.send("GET /b HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    engine.head();
    harness.drain();
    idle.expect_end();
    wait_for("the socket is gone", || {
        !harness.dir.path().join("skepd.sock").exists()
    });
    engine.send(OK);
    busy.expect(OK);
    busy.expect_end();
    assert!(harness.join(), "all ended in time");
}

#[test]
fn hijacked_streams_are_given_a_bounded_time() {
    let grace = Duration::from_millis(200);
    let mut harness = Harness::with(Setup {
        grace,
        ..Setup::default()
    });
    let mut client = harness.client();
    client.send("POST /exec/e/start HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    engine.head();
    engine.send("HTTP/1.1 101 UPGRADED\r\n\r\n");
    client.head();
    harness.drain();
    client.send("still");
    engine.expect("still");
    assert!(!harness.join(), "the stream did not end by itself");
    client.expect_end();
    engine.expect_end();
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    /// A certificate and its key, in PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

fn tls_client(
    port: u16,
    trusted: &Authority,
    own: Option<(String, String)>,
) -> Peer<StreamOwned<ClientConnection, TcpStream>> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots.add(trusted.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain =
                vec![rustls::pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(LONG)).unwrap();
    Peer(StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        tcp,
    ))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn tls_admits_only_whom_the_authority_vouches_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key) = authority.issue();
    let port = free_port();
    let arguments = vec![
        format!("--host=tcp://127.0.0.1:{port}"),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", write("ca.pem", &authority.issuer.pem())),
        format!("--tlscert={}", write("cert.pem", &cert)),
        format!("--tlskey={}", write("key.pem", &key)),
    ];
    let harness = Harness::with(Setup {
        arguments,
        ..Setup::default()
    });

    let mut client = tls_client(port, &authority, Some(authority.issue()));
    client.send("POST /exec/e/start HTTP/1.1\r\n\r\n");
    let mut engine = harness.accept();
    engine.head();
    engine.send("HTTP/1.1 101 UPGRADED\r\n\r\nout");
    client.expect("HTTP/1.1 101 UPGRADED\r\n\r\nout");
    client.send("in");
    engine.expect("in");
    client.0.conn.send_close_notify();
    client.send("");
    engine.expect_end();
    engine.send("late");
    client.expect("late");
    drop(engine);
    client.expect_end();

    for own in [None, Some(stranger.issue())] {
        let mut client = tls_client(port, &authority, own);
        let refused = std::io::Write::write_all(&mut client.0, b"GET /a HTTP/1.1\r\n\r\n").is_err()
            || !matches!(std::io::Read::read(&mut client.0, &mut [0]), Ok(1));
        assert!(refused);
    }
    assert!(
        harness.engine.as_ref().unwrap().is_idle(),
        "no request of theirs got through"
    );
}

/// The real process, killed when the test is over.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn skepd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skepd"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn the_process_starts_serves_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().display();
    let socket = dir.path().join("s.sock");
    let arguments = [
        format!("--host=unix://{}", socket.display()),
        format!("--engine=unix://{base}/none.sock"),
        format!("--data-dir={base}/data"),
        format!("--pidfile={base}/pid"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut process = Process(skepd(&arguments).spawn().unwrap());
    wait_for("the socket is there", || socket.exists());
    let mut client = Peer::new(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    client.send("GET /swarm HTTP/1.1\r\n\r\n");
    assert!(client.reply().0.starts_with("HTTP/1.1 503 "));
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    assert_eq!(pid.trim(), process.0.id().to_string());

    let second = skepd(&arguments[..3]).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        text.contains("another process answers") || text.contains("in use"),
        "{text}"
    );

    kill(Pid::from_raw(process.0.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(process.0.wait().unwrap().success());
    assert!(!socket.exists() && !dir.path().join("pid").exists());
}

#[test]
fn usage_is_explained() {
    let help = skepd(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "--host",
        "--engine",
        "--data-dir",
        "--tlsverify",
        "--node-generic-resource",
    ] {
        assert!(help.contains(flag), "{help}");
    }
    let bad = skepd(&["--host=tcp://0.0.0.0:2375"]).output().unwrap();
    assert!(!bad.status.success());
    let text = String::from_utf8(bad.stderr).unwrap();
    assert!(
        text.starts_with("skepd: --host: tcp://0.0.0.0:2375 would give everyone"),
        "{text}"
    );
}
