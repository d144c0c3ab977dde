//! What a lab has made, written down before it is made.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::process::Identity;
use super::{Error, Name, Shape};

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The lab's name.
    pub name: String,
    /// Who uses it; none for one that was made to stay.
    pub owner: Option<Identity>,
    /// What it looks like.
    pub shape: Shape,
    /// Namespaces.
    pub namespaces: Vec<Made>,
    /// Processes.
    pub processes: Vec<Process>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// What tells it from another of that name; none between the moment at which it was written down and that at which it was made.
    pub inode: Option<u64>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `gateway`, `app-1`, `server`.
    pub name: String,
    #[serde(flatten)]
    pub identity: Identity,
}

impl State {
    /// Of this lab, if it has made anything.
    pub fn load(lab: &Name) -> Result<Option<State>, Error> {
        let path = lab.state();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(&path, error)),
        };
        let state: State = serde_json::from_str(&text).map_err(|error| {
            let what =
                format!("{error}; remove the file, and the namespaces sluicegate-lab-{}-*", lab.as_str());
            Error::file(&path, what)
        })?;
        Ok(Some(state))
    }

    /// Writes it: whoever reads sees the old one or the new one.
    pub fn save(&self, lab: &Name) -> Result<(), Error> {
        let path = lab.state();
        let failed = |error: std::io::Error| Error::file(&path, error);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
        let new = path.with_extension("new");
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).map_err(failed)
    }

    /// Who uses the lab, if that one is alive and somebody else.
    pub fn used_by(&self) -> Option<u32> {
        let owner = self.owner.as_ref()?;
        (owner.is_alive() && owner.pid != std::process::id()).then_some(owner.pid)
    }
}

/// What tells a namespace from another of the same name.
pub fn inode(namespace: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;

    let path = Path::new("/run/netns").join(namespace);
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}
