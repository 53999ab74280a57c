//! What the worker wants remembered of the node's networks, one sealed file a network, so that a
//! daemon that finds no manager goes on with it. Never interprets one; what cannot be read is left
//! out, since the dispatcher tells again.

use std::io;
use std::path::{Path, PathBuf};

use skep_core::Id;
use skep_core::worker::Kept;
use tracing::warn;

use super::records;
use crate::disk::{self, Keys};

/// The directory of the networks, below the agent's own.
const NETWORKS: &str = "networks";

/// The networks, and what they are sealed with.
#[derive(Clone, Debug)]
pub struct Networks {
    dir: PathBuf,
    keys: Keys,
}

impl Networks {
    /// Opens or makes the directory below the agent's own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path, keys: Keys) -> io::Result<Self> {
        let dir = dir.join(NETWORKS);
        disk::create_private_dir(&dir)?;
        Ok(Self { dir, keys })
    }

    /// Everything that is remembered.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn load(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some() {
                // What a crash left of a half-written file.
                std::fs::remove_file(&path)?;
                continue;
            }
            match self.read(&path) {
                Ok(kept) => all.push(kept),
                Err(error) => warn!(path = %path.display(), %error, "left out a damaged record"),
            }
        }
        Ok(all)
    }

    fn read(&self, path: &Path) -> io::Result<Kept> {
        let plain = self.keys.open(&label(path), &std::fs::read(path)?);
        let plain = plain
            .ok_or_else(|| io::Error::other("it cannot be opened with the keys of this node"))?;
        rmp_serde::from_slice(&plain).map_err(io::Error::other)
    }

    /// Writes (`Some`) or deletes (`None`) networks. Blocks on the disk.
    ///
    /// # Errors
    /// The first failure; the others are tried all the same.
    pub fn write(&self, changes: &[(Id, Option<Kept>)]) -> io::Result<()> {
        let mut outcome = Ok(());
        for (network, kept) in changes {
            let written = self.write_one(network, kept.as_ref());
            if outcome.is_ok() {
                outcome = written;
            }
        }
        outcome
    }

    fn write_one(&self, network: &Id, kept: Option<&Kept>) -> io::Result<()> {
        let path = records::path(&self.dir, network)?;
        match kept {
            Some(kept) => {
                let plain = rmp_serde::to_vec_named(kept).map_err(io::Error::other)?;
                let sealed = self.keys.seal(&label(&path), plain)?;
                disk::write_atomic(&path, &sealed, 0o600)
            }
            None => absent(std::fs::remove_file(&path)),
        }
    }
}

/// Forgets every network below the agent's directory.
///
/// # Errors
/// When the directory cannot be removed.
pub fn forget(dir: &Path) -> io::Result<()> {
    absent(std::fs::remove_dir_all(dir.join(NETWORKS)))
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file is bound to its network: it cannot be put in another one's place.
fn label(path: &Path) -> Vec<u8> {
    let network = path.file_name().unwrap_or_default();
    [b"network ", network.as_encoded_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use skep_core::assignment::Overlay;
    use skep_core::plane::Service;

    use super::*;

    fn kept(id: &str) -> Kept {
        let service = Service {
            id: "s1".into(),
            name: "name-of-the-service".into(),
            aliases: Vec::new(),
            vips: vec!["10.0.1.2".parse().unwrap()],
            ports: Vec::new(),
            snat: false,
            proxy_protocol: false,
        };
        Kept {
            overlay: Overlay {
                id: id.into(),
                name: "front".into(),
                vni: 4097,
                port: 4789,
                mtu: 1450,
                mtu_follows: true,
                driver: None,
                subnet: "10.0.1.0/24".parse().unwrap(),
                gateway: "10.0.1.3".parse().unwrap(),
                ipv6: None,
                internal: false,
                ingress: false,
                local: "192.0.2.1".parse().unwrap(),
                remotes: [("10.0.1.9".parse().unwrap(), "192.0.2.2".parse().unwrap())].into(),
                keys: Vec::new(),
                shown: String::new(),
                gateways: Default::default(),
                branches: Default::default(),
                peers: Default::default(),
                number: 0,
            },
            services: vec![service],
            endpoints: Vec::new(),
        }
    }

    #[test]
    fn networks_are_kept_sealed_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        let networks = Networks::open(dir.path(), keys.clone()).unwrap();
        let all = [
            ("n1".into(), Some(kept("n1"))),
            ("n2".into(), Some(kept("n2"))),
        ];
        networks.write(&all).unwrap();
        networks
            .write(&[("n2".into(), None), ("n3".into(), None)])
            .unwrap();
        let bytes = std::fs::read(dir.path().join("networks/n1")).unwrap();
        let name = b"name-of-the-service";
        assert!(!bytes.windows(name.len()).any(|part| part == name));
        let again = Networks::open(dir.path(), keys).unwrap();
        assert_eq!(again.load().unwrap(), [kept("n1")]);
        // One network's file is not another's, nor another node's.
        let others = Networks::open(dir.path(), Keys::generate().unwrap()).unwrap();
        assert!(others.load().unwrap().is_empty());
        std::fs::rename(
            dir.path().join("networks/n1"),
            dir.path().join("networks/n9"),
        )
        .unwrap();
        assert!(again.load().unwrap().is_empty());
        assert!(networks.write(&[("../x".into(), None)]).is_err());
        forget(dir.path()).unwrap();
        assert!(again.load().is_err());
    }
}
