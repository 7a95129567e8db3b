//! Whose turn it is to work on a sandbox.

use std::{
    io,
    path::{Path, PathBuf},
};

use multus_cni::{AttachmentId, ByteLock, ContainerId, make_directory};

use crate::Error;

/// Held by whoever works on a sandbox, until dropped. It keeps threads and processes apart, and ends with them.
pub(crate) type Turn = ByteLock;

/// Waits for the turn.
pub(crate) fn wait(cni_dir: &Path, container: &ContainerId) -> Result<Turn, Error> {
    let file = file(cni_dir);
    let turn = match ByteLock::acquire(&file, hash(container)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = make_directory(cni_dir, 0o700);
            made.and_then(|()| ByteLock::acquire(&file, hash(container)))
        }
        other => other,
    };
    turn.map_err(Error::io("locking", file))
}

/// Takes the turn, unless somebody has it.
pub(crate) fn try_take(cni_dir: &Path, container: &ContainerId) -> Result<Option<Turn>, Error> {
    let file = file(cni_dir);
    match ByteLock::try_acquire(&file, hash(container)) {
        // Nobody ever had one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => wait(cni_dir, container).map(Some),
        other => other.map_err(Error::io("locking", file)),
    }
}

/// No sandbox can have that name.
fn file(cni_dir: &Path) -> PathBuf {
    cni_dir.join(".sandboxes")
}

fn hash(container: &ContainerId) -> u64 {
    AttachmentId { container_id: container.to_string(), ifname: String::new() }.stable_hash()
}
