//! The file that names the running daemon's process. Refuses to replace that of a live one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A file that is removed when the daemon ends.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's id. A file of a process that is gone, or of this one, is replaced.
    pub fn create(path: &Path) -> Result<Self> {
        let name = path.display();
        let old = fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = old
            && pid != std::process::id()
            && Path::new(&format!("/proc/{pid}")).exists()
        {
            bail!("--pidfile: {name} names process {pid}, which is running; stop it first");
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("--pidfile: {name}"))?;
        }
        fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("--pidfile: cannot write {name}"))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/skepd.pid");
        let file = PidFile::create(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap().trim(),
            std::process::id().to_string()
        );
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "1\n").unwrap();
        assert!(
            PidFile::create(&path)
                .unwrap_err()
                .to_string()
                .contains("process 1")
        );
        fs::write(&path, "4294967295").unwrap();
        assert!(PidFile::create(&path).is_ok());
    }
}
