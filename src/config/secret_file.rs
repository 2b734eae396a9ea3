//! Files that contain a secret: only their owner may read or change them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

/// The permission bits of other users than the owner.
pub(super) const OTHER_USERS: u32 = 0o077;
/// The same for systemd's credentials: systemd may grant access to the service's user by an ACL, whose mask appears as
/// the group's bits.
pub(super) const OTHER_USERS_BESIDE_ACL: u32 = 0o007;

/// The permission bits that this file must not have.
pub(super) fn forbidden(path: &Path) -> u32 {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
    match credentials {
        Some(directory) if path.starts_with(&directory) => OTHER_USERS_BESIDE_ACL,
        _ => OTHER_USERS,
    }
}

/// Why a file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("cannot read the {what} {}: {source}; create it, readable by its owner only", path.display())]
    Read {
        /// The content of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// Other users than its owner can read or change the file.
    #[error("other users can read or change the {what} {} (mode {mode:04o}); chmod 600 it", path.display())]
    Exposed {
        /// The content of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("the {what} {} belongs to user {owner}; it must belong to root or user {user}", path.display())]
    Owner {
        /// The content of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The file's owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// The path is not a regular file.
    #[error("{} is not a regular file; name the {what}", path.display())]
    NotAFile {
        /// The content of the file.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
}

impl SecretFileError {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Exposed { path, .. }
            | Self::Owner { path, .. }
            | Self::NotAFile { path, .. } => path,
        }
    }
}

/// Reads the file, at most `max` bytes of it. `what` names its content in errors.
///
/// # Errors
///
/// The file cannot be read, has any of the permission bits `forbidden`, or belongs to neither root nor this user.
pub(super) fn read(
    path: &Path,
    what: &'static str,
    forbidden: u32,
    max: usize,
) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let read = |source| SecretFileError::Read { what, path: path.to_owned(), source };
    // check before opening, because opening a FIFO would block
    if !std::fs::metadata(path).map_err(read)?.is_file() {
        return Err(SecretFileError::NotAFile { what, path: path.to_owned() });
    }
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    let mode = metadata.mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(SecretFileError::Exposed { what, path: path.to_owned(), mode });
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != user {
        return Err(SecretFileError::Owner { what, path: path.to_owned(), owner: metadata.uid(), user });
    }
    // with enough room, because growing would leave a copy of the secret in memory
    let mut bytes = Zeroizing::new(Vec::with_capacity(max));
    file.take(max as u64).read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}
