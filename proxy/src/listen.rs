//! Opens the sockets on which clients are served. Takes over a socket file that nobody answers on,
//! never one that is in use.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Group, chown};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Host};
use crate::tls;

/// Who may use a socket besides root.
const GROUP: &str = "docker";
/// Read and write for the owner and the group, as dockerd has it.
const MODE: u32 = 0o660;

/// An open socket.
pub enum Listener {
    /// A unix socket; its file goes when the listener does.
    Unix(UnixListener, SocketFile),
    /// A TCP socket, and what speaks TLS on it.
    Tcp(TcpListener, Option<TlsAcceptor>),
}

/// A connection as it was accepted, before any handshake.
pub enum Accepted {
    /// From a unix socket.
    Unix(UnixStream),
    /// From a TCP socket.
    Tcp(TcpStream, Option<TlsAcceptor>),
}

impl Listener {
    /// Waits for a client.
    pub async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole: waiting to fill packets would only delay them.
                stream.set_nodelay(true)?;
                Accepted::Tcp(stream, tls.clone())
            }
        })
    }
}

/// Opens all hosts of a configuration, or none.
pub async fn open(config: &Config) -> Result<Vec<Listener>> {
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let mut listeners = Vec::new();
    for host in &config.hosts {
        let listener = match host {
            Host::Unix(path) => open_unix(path),
            Host::Tcp(address) => TcpListener::bind(address)
                .await
                .map(|listener| Listener::Tcp(listener, acceptor.clone()))
                .map_err(Into::into),
        };
        listeners.push(listener.with_context(|| format!("cannot listen on {host}"))?);
        tracing::info!(%host, "serving");
    }
    Ok(listeners)
}

fn open_unix(path: &Path) -> Result<Listener> {
    check_free(path)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create the directory {}", parent.display()))?;
    }
    // Made under another name and moved into place, so that nobody meets it with wrong rights, and
    // a stale file is replaced in one step.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    let placed = place(&draft, path);
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    Ok(Listener::Unix(listener, placed?))
}

fn place(draft: &Path, path: &Path) -> Result<SocketFile> {
    if let Some(group) = Group::from_name(GROUP).ok().flatten()
        && let Err(error) = chown(draft, None, Some(group.gid))
    {
        tracing::warn!(%error, path = %path.display(), "the socket stays out of group {GROUP}");
    }
    fs::set_permissions(draft, fs::Permissions::from_mode(MODE))?;
    let inode = fs::metadata(draft)?.ino();
    fs::rename(draft, path)?;
    Ok(SocketFile {
        path: path.to_owned(),
        inode,
    })
}

/// Refuses a path that is in use or no socket.
fn check_free(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) => metadata.file_type(),
    };
    if !kind.is_socket() {
        bail!(
            "{} exists and is no socket; remove it or choose another path",
            path.display()
        );
    }
    match BlockingUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("cannot tell whether the socket there is in use"),
        Ok(_) => bail!(
            "another process answers on {}; stop it or choose another --host",
            path.display()
        ),
    }
}

/// Removes a socket's file in the end, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_sockets_are_replaced_and_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/s.sock");
        let first = open_unix(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            MODE
        );
        let refused = open_unix(&path).err().unwrap().to_string();
        assert!(refused.contains("another process answers"), "{refused}");
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale file is left");
        let again = open_unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not ours").unwrap();
        drop(again);
        assert!(path.exists(), "what replaced it stays");
        assert!(
            open_unix(&path)
                .err()
                .unwrap()
                .to_string()
                .contains("no socket")
        );
    }
}
