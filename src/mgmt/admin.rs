//! The door of the admin API: a unix socket (`management.socket`) that speaks HTTP, and who may come in.
//!
//! ```text
//! curl --unix-socket /run/sluicegate/edge.sock http://localhost/v1/status
//! ```
//!
//! The same server, the same parser and the same bounds as on `management.listen` ([`super::server`]); what is answered is [`Api`]'s business, and
//! [docs/admin.md](https://github.com/sluicegate/sluicegate/blob/main/docs/admin.md) lists it. Whoever comes by the socket may change things: the file's mode is 0600, and
//! the kernel is asked who it is that connects. Root and the user whom the program runs as may come in, and the group of `management.group` if there is
//! one. By `management.listen`, where `management.api` says so, one may look only.

pub mod client;
pub mod filter;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::control::Refusal;
use super::http::{Asked, Outcome};
use super::server::{Listener, Reply, Serve, Server, Socket};
use crate::config::{ControlSocket, Group, ManagementPlan};
use crate::dpdk::Error;

/// The version of everything that is said.
pub const VERSION: u32 = 1;
/// The kind of all answers but streams.
pub const JSON: &str = "application/json";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Ask for what changes nothing.
    Look,
    /// Everything.
    Change,
}

/// A request on its way to whoever answers it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As it was read.
    pub asked: &'a Asked<'a>,
    /// Its body.
    pub body: &'a [u8],
    /// The user and the process at the other end, where that is known.
    pub who: &'a str,
    /// What the client may do.
    pub rights: Rights,
}

/// Who answers what stands behind `/v1/`.
pub trait Api: Send + Sync {
    /// The answer; called on a thread of the connection's own.
    fn answer(&self, request: &Request<'_>) -> Reply;
}

/// An answer of this version: `fields` with `version` and `ok` in front.
pub fn page(outcome: Outcome, ok: bool, fields: Value) -> Reply {
    let mut answer = json!({ "version": VERSION, "ok": ok });
    if let (Some(answer), Value::Object(fields)) = (answer.as_object_mut(), fields) {
        answer.extend(fields);
    }
    Reply::text(outcome, JSON, &format!("{answer}\n"))
}

impl Refusal {
    /// As an answer over HTTP.
    pub fn reply(&self) -> Reply {
        Reply::text(self.outcome(), JSON, &format!("{}\n", self.to_json()))
    }

    fn outcome(&self) -> Outcome {
        match self.error {
            "not-found" => Outcome::NotFound,
            "method" => Outcome::Method,
            "not-allowed" => Outcome::Forbidden,
            "busy" => Outcome::Busy,
            "late" | "starting" | "stopping" => Outcome::Unfit,
            "too-long" => Outcome::LongBody,
            _ => Outcome::Bad,
        }
    }
}

/// The socket at work.
#[derive(Debug)]
pub struct Admin {
    path: PathBuf,
    /// Device and inode of the socket there.
    own: Option<(u64, u64)>,
    server: Server,
}

impl Admin {
    /// Opens the socket of a plan, on threads that run on these CPUs. An error where nobody said where it should be is a note: nobody can ask then.
    pub fn open(
        plan: &ManagementPlan,
        api: Arc<dyn Api>,
        cpus: &[u32],
    ) -> Result<Option<Self>, Result<Error, String>> {
        let at = |path: &Path| Admin::at(path, plan.group.as_ref(), api, cpus);
        match &plan.socket {
            ControlSocket::Off => Ok(None),
            ControlSocket::At(path) => at(path).map(Some).map_err(|error| {
                Ok(Error::refused(
                    format!("management.socket = {}: {error}", path.display()),
                    "choose another path, or write \"off\"",
                ))
            }),
            ControlSocket::Usual(path) => {
                if let Some(folder) = path.parent() {
                    let _ = fs::create_dir(folder); // if it cannot be, the next step says so
                }
                let note = |error| Err(format!("no commands: {}: {error}", path.display()));
                at(path).map(Some).map_err(note)
            }
        }
    }

    fn at(path: &Path, group: Option<&Group>, api: Arc<dyn Api>, cpus: &[u32]) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        // Whoever connects before this is asked who he is all the same.
        let opened = match group {
            None => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
            Some(group) => chown(path, None, Some(group.id))
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o660)))
                .map_err(|error| io::Error::new(error.kind(), format!("group {}: {error}", group.name))),
        };
        let door = Door { api, group: group.map(|group| group.id) };
        let server =
            opened.and_then(|()| Server::on(Listener::Unix(listener), Box::new(door), cpus.to_vec()));
        if server.is_err() {
            let _ = fs::remove_file(path); // nobody listens there
        }
        Ok(Admin { path: path.to_owned(), own: identity(path), server: server? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody is answered any more, and no thread is left, when it returns.
    pub fn close(&mut self) {
        self.server.close();
        // Somebody may have removed it, and another instance may listen at that place since.
        if self.own.take().is_some_and(|own| identity(&self.path) == Some(own)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.close();
    }
}

/// What tells the file from another one of that name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// A socket on which nobody listens any more makes room. Anything else stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let taken = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, what);
    if !metadata.file_type().is_socket() {
        return Err(taken("there is a file of that name"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(taken("another instance listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Who may come in, and to whom he is led.
struct Door {
    api: Arc<dyn Api>,
    group: Option<u32>,
}

impl Serve for Door {
    fn admits(&self, socket: &Socket) -> Result<String, Reply> {
        let Socket::Unix(stream) = socket else { return Ok(String::new()) };
        let refused = |text: String| Err(Refusal::new("not-allowed", text).reply());
        match rustix::net::sockopt::socket_peercred(stream) {
            Err(error) => refused(format!("nobody knows who asks: {error}")),
            Ok(peer) => {
                let (own, group) = (rustix::process::geteuid(), peer.gid.as_raw());
                let is_one = peer.uid == own || peer.uid.is_root();
                match is_one || self.group.is_some_and(|own| is_member(own, group, peer.pid)) {
                    true => {
                        Ok(format!("socket, uid {}, pid {}", peer.uid.as_raw(), peer.pid.as_raw_nonzero()))
                    }
                    false => {
                        refused("only root, the user of the program and management.group may ask".into())
                    }
                }
            }
        }
    }

    fn answer(&self, asked: &Asked<'_>, body: &[u8], who: &str) -> Reply {
        self.api.answer(&Request { asked, body, who, rights: Rights::Change })
    }
}

/// Is the group the peer's own, or one of its process' others? The mode of the file has asked the same already.
fn is_member(group: u32, own: u32, pid: rustix::process::Pid) -> bool {
    let status = || fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    own == group || groups(&status()).any(|other| other == group)
}

/// The groups in a process' `status` (proc_pid_status(5)).
fn groups(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests;
