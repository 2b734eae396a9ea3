//! The files of the state directory, which only the agent's user can access.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;

/// The longest file accepted, in bytes. The tokens of a login have a few kilobytes at most; a larger file is not one that
/// the agent wrote.
const MAX_LENGTH: u64 = 64 << 10;
/// Why a file could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The directory cannot be created.
    #[error("cannot create the directory {}: {source}", path.display())]
    Directory {
        /// The path of the directory.
        path: PathBuf,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The path of the file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// Other users could have read or written the file.
    #[error("other users can access {} (owner {owner}, mode {mode:04o})", path.display())]
    Exposed {
        /// The path of the file.
        path: PathBuf,
        /// The user who owns the file.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not contain what the agent writes.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
}

/// Seconds since 1970 by the device's clock.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The content of a file that only the agent's user can access; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateFileError> {
    let failed = |source| StateFileError::Read { path: path.to_owned(), source };
    // do not follow a symbolic link, and do not wait for a FIFO
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if !metadata.is_file() || metadata.len() > MAX_LENGTH {
        return Err(StateFileError::Damaged(path.to_owned()));
    }
    let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if mode & 0o077 != 0 || !is_ours {
        return Err(StateFileError::Exposed { path: path.to_owned(), owner, mode });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_LENGTH as usize + 1));
    file.take(MAX_LENGTH + 1).read_to_end(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Replaces the content of a file in the directory in one step. Only the agent's user can access the file.
pub(crate) fn write(directory: &Path, file: &str, text: &[u8]) -> Result<(), StateFileError> {
    create_directory(directory)?;
    let new = directory.join(format!("{file}.new"));
    let written = replace(&new, &directory.join(file), text);
    if written.is_err() {
        // a partial file would take up space on a disk that may be full
        let _may_not_exist = fs::remove_file(&new);
    }
    written.map_err(|source| StateFileError::Write { path: new, source })
}

/// Creates the directory if it does not exist.
pub(crate) fn create_directory(path: &Path) -> Result<(), StateFileError> {
    let failed = |source| StateFileError::Directory { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

/// Writes `new`, then renames it to `file`.
fn replace(new: &Path, file: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // created, not opened: no other process has it open, and no symbolic link is followed
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    written.write_all(text)?;
    written.sync_all()?;
    drop(written);
    fs::rename(new, file)?;
    if let Some(directory) = file.parent() {
        // Not every file system supports this. Without it the old file may be back after a power cut, which
        // is as good.
        let _old_or_new = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(())
}
