//! The files of the audit: a ring in the state directory, which only the agent's user can access.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::cloud::state_file::create_directory;
use crate::policy::audit::{AuditEntry, AuditHash, AuditStamp, ChainEnd, torn_line};

/// The number of files. With [`MAX_LENGTH`], they have some 10,000 lines: months of work on vehicles.
const FILES: usize = 4;
/// The longest file, in bytes.
const MAX_LENGTH: u64 = 1 << 20;
/// A longer file is not one that the agent wrote.
const MAX_READ: u64 = 2 * MAX_LENGTH;

/// The file with this number; 0 is the newest.
fn path_of(directory: &Path, number: usize) -> PathBuf {
    match number {
        0 => directory.join("audit.jsonl"),
        number => directory.join(format!("audit.{number}.jsonl")),
    }
}

/// All files of the audit that there can be, from the oldest to the newest.
pub(crate) fn audit_files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    (0..FILES).rev().map(|number| path_of(directory, number))
}

/// The content of a file of the audit; `None` if there is none.
pub(crate) fn read_audit_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path) {
        Ok(file) => read(&file).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MAX_READ).read_to_end(&mut text)?;
    if text.len() as u64 == MAX_READ {
        return Err(io::Error::other("the file is longer than any that the agent writes"));
    }
    Ok(text)
}

/// The newest file.
pub(super) struct AuditFile {
    directory: PathBuf,
    file: File,
    len: u64,
    head: AuditHash,
}

impl AuditFile {
    /// Opens the newest file, and continues its chain. Marks a torn last line.
    pub(super) fn open(directory: &Path, stamp: &AuditStamp<'_>) -> io::Result<Self> {
        create_directory(directory).map_err(io::Error::other)?;
        let file = open_private(&path_of(directory, 0))?;
        let text = read(&file)?;
        let ChainEnd { head, torn } = ChainEnd::of(&text);
        let head = match head {
            Some(head) => head,
            None => head_of_rest(directory)?,
        };
        let mut opened = Self { directory: directory.to_owned(), file, len: text.len() as u64, head };
        if !torn.is_empty() {
            let mark = torn_line(head, torn, stamp);
            opened.write(&format!("\n{mark}"))?;
            opened.head = AuditHash::of(mark.trim_end().as_bytes());
            opened.file.sync_data()?;
        }
        Ok(opened)
    }

    /// The hash of the last line.
    pub(super) fn head(&self) -> AuditHash {
        self.head
    }

    /// Whether the file still is in its directory.
    pub(super) fn is_there(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Adds a line.
    pub(super) fn append(&mut self, entry: &AuditEntry, stamp: &AuditStamp<'_>) -> io::Result<()> {
        let line = entry.line(self.head, stamp);
        if self.len > 0 && self.len + line.len() as u64 > MAX_LENGTH {
            self.begin_next()?;
        }
        self.write(&line)?;
        self.head = AuditHash::of(line.trim_end().as_bytes());
        Ok(())
    }

    /// Waits until all lines are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the text as a whole, or nothing.
    fn write(&mut self, text: &str) -> io::Result<()> {
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // the disk is full: a part of a line would break the chain when it is continued
            let _torn_if_it_fails = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += text.len() as u64;
        Ok(())
    }

    /// Moves every file on by one, over the oldest, and begins a new one.
    fn begin_next(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for number in (1..FILES).rev() {
            let (from, to) = (path_of(&self.directory, number - 1), path_of(&self.directory, number));
            match fs::rename(from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open_private(&path_of(&self.directory, 0))?;
        self.len = 0;
        // not every file system supports this; without it, files may have their old names after a power cut
        let _old_or_new = File::open(&self.directory).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

/// The head of the chain if the newest file has no line: the agent ended between two files.
fn head_of_rest(directory: &Path) -> io::Result<AuditHash> {
    for number in 1..FILES {
        if let Some(text) = read_audit_file(&path_of(directory, number))?
            && let Some(head) = ChainEnd::of(&text).head
        {
            return Ok(head);
        }
    }
    Ok(AuditHash::NONE)
}

fn open_private(path: &Path) -> io::Result<File> {
    // do not follow a symbolic link, and do not wait for a FIFO
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
