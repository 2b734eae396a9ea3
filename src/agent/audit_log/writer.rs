//! The thread that writes the audit, so that a slow disk delays nothing.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::oneshot;

use super::file::AuditFile;
use crate::policy::audit::{AuditEntry, AuditHash, AuditStamp};

/// The clocks at the moment of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) now: Instant,
    pub(super) up_ms: u64,
    pub(super) unix_ms: u64,
}

/// What the thread is asked to do.
pub(super) enum AuditJob {
    /// Write an entry.
    Write(Box<AuditEntry>, Clocks),
    /// Report the head of the chain when all entries before are on the disk.
    Head(Clocks, oneshot::Sender<AuditHash>),
}

/// Writes the audit.
pub(super) struct AuditWriter {
    directory: PathBuf,
    boot: String,
    file: Option<AuditFile>,
    /// An entry that must be on the disk is not there yet.
    must_sync: bool,
    lost: u64,
    has_warned: bool,
}

impl AuditWriter {
    pub(super) fn new(directory: PathBuf, boot: String) -> Self {
        Self { directory, boot, file: None, must_sync: false, lost: 0, has_warned: false }
    }

    /// Works until all senders are gone.
    pub(super) fn run(mut self, jobs: &Receiver<AuditJob>) {
        while let Ok(job) = jobs.recv() {
            self.handle(job);
            // all that waits shares one wait for the disk
            while let Ok(job) = jobs.try_recv() {
                self.handle(job);
            }
            self.sync();
        }
    }

    fn handle(&mut self, job: AuditJob) {
        match job {
            AuditJob::Write(entry, clocks) => self.write(&entry, clocks),
            AuditJob::Head(clocks, answer) => {
                self.must_sync = true;
                self.sync();
                let head = self.opened(clocks).map(|file| file.head());
                if let Ok(head) = head {
                    let _asker_is_gone = answer.send(head);
                }
            }
        }
    }

    /// Writes an entry. An entry that cannot be written is counted, and the count is written with the next one.
    pub(super) fn write(&mut self, entry: &AuditEntry, clocks: Clocks) {
        if let Err(error) = self.append(entry, clocks) {
            self.lost += 1;
            self.handle_error(&error);
        }
        self.must_sync |= entry.is_urgent();
    }

    fn append(&mut self, entry: &AuditEntry, clocks: Clocks) -> io::Result<()> {
        let (lost, boot) = (self.lost, self.boot.clone());
        let stamp = stamp(&boot, clocks);
        let file = self.opened(clocks)?;
        if lost > 0 {
            file.append(&AuditEntry::lost(clocks.now, lost), &stamp)?;
            self.lost = 0;
        }
        self.opened(clocks)?.append(entry, &stamp)
    }

    fn opened(&mut self, clocks: Clocks) -> io::Result<&mut AuditFile> {
        let file = match self.file.take().filter(AuditFile::is_there) {
            Some(file) => file,
            None => AuditFile::open(&self.directory, &stamp(&self.boot, clocks))?,
        };
        Ok(self.file.insert(file))
    }

    /// Waits until what must be on the disk is there.
    pub(super) fn sync(&mut self) {
        if std::mem::take(&mut self.must_sync)
            && let Some(Err(error)) = self.file.as_ref().map(AuditFile::sync)
        {
            self.handle_error(&error);
        }
    }

    /// The file is opened again for the next entry.
    fn handle_error(&mut self, error: &io::Error) {
        self.file = None;
        if !std::mem::replace(&mut self.has_warned, true) {
            let directory = self.directory.display();
            tracing::warn!("cannot write the audit in {directory}: {error}; entries are lost until it can");
        }
    }
}

fn stamp(boot: &str, clocks: Clocks) -> AuditStamp<'_> {
    let Clocks { now, up_ms, unix_ms } = clocks;
    AuditStamp { boot, now, up_ms, unix_ms }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::agent::audit_log::{audit_files, read_audit_file};
    use crate::policy::audit::{ChainBreak, ChainCheck};

    fn clocks() -> Clocks {
        Clocks { now: Instant::now(), up_ms: 1, unix_ms: 1_796_033_009_000 }
    }

    fn writer(directory: &Path) -> AuditWriter {
        AuditWriter::new(directory.to_owned(), "b007".to_owned())
    }

    fn write(writer: &mut AuditWriter, count: u64) {
        writer.write(&AuditEntry::lost(Instant::now(), count), clocks());
    }

    /// The number of lines and of torn ones, and the head.
    fn checked(directory: &Path) -> Result<(usize, usize, AuditHash), ChainBreak> {
        let (mut check, mut lines, mut torn) = (ChainCheck::default(), 0, 0);
        for path in audit_files(directory) {
            if let Some(text) = read_audit_file(&path).unwrap() {
                let checked = check.check_file(&text)?;
                lines += checked.lines;
                torn += checked.torn;
            }
        }
        Ok((lines, torn, check.head().unwrap()))
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_in_a_private_file() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let mut first = writer(&state);
        write(&mut first, 1);
        write(&mut first, 2);
        drop(first);
        let mut second = writer(&state);
        write(&mut second, 3);
        let (lines, torn, head) = checked(&state).unwrap();
        assert_eq!((lines, torn), (3, 0));
        assert_eq!(second.file.as_ref().unwrap().head(), head);
        let mode = fs::metadata(state.join("audit.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(state.join("audit.jsonl"), fs::Permissions::from_mode(0o644)).unwrap();
        write(&mut writer(&state), 4);
        let mode = fs::metadata(state.join("audit.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_torn_last_line_is_kept_and_marked_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        write(&mut writer(directory.path()), 1);
        write(&mut writer(directory.path()), 2);
        let whole = fs::read(&path).unwrap();
        for cut in [whole.len() - 1, whole.len() - 20, whole.len() / 2 + 1, 3] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(checked(directory.path()).is_err(), "{cut}");
            let mut next = writer(directory.path());
            write(&mut next, 3);
            write(&mut next, 4);
            let text = fs::read(&path).unwrap();
            assert!(text.starts_with(&whole[..cut]), "the torn line is evidence");
            assert_eq!(checked(directory.path()).map(|(_, torn, _)| torn), Ok(1), "{cut}");
        }
    }

    #[test]
    fn four_files_of_a_mebibyte_are_kept_and_their_chain_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path());
        for count in 0..40_000 {
            write(&mut writer, count);
        }
        let files: Vec<_> =
            audit_files(directory.path()).map(|path| fs::metadata(path).unwrap().len()).collect();
        assert_eq!(files.len(), 4);
        assert!(files[..3].iter().all(|len| (1_000_000..=1 << 20).contains(len)), "{files:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
        let (_, torn, head) = checked(directory.path()).unwrap();
        assert_eq!((torn, head), (0, writer.file.as_ref().unwrap().head()));

        // the agent ended between two files
        fs::rename(directory.path().join("audit.jsonl"), directory.path().join("audit.1.jsonl")).unwrap();
        let after = self::writer(directory.path());
        let expected = head;
        drop(writer);
        let mut after = after;
        write(&mut after, 1);
        let text = fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
        assert!(text.contains(&expected.to_string()), "{text}");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_chain_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut writer = writer(directory.path());
        write(&mut writer, 1);
        // something else in the place of the file
        fs::rename(&path, directory.path().join("audit.1.jsonl")).unwrap();
        writer.file = None;
        fs::create_dir(&path).unwrap();
        for _ in 0..5 {
            write(&mut writer, 2);
        }
        fs::remove_dir(&path).unwrap();
        write(&mut writer, 3);
        assert_eq!(checked(directory.path()).map(|(lines, ..)| lines), Ok(3));
        assert!(fs::read_to_string(&path).unwrap().lines().next().unwrap().contains("\"count\":5"));
        // a file that was deleted is begun again
        fs::remove_file(&path).unwrap();
        write(&mut writer, 4);
        assert!(path.exists());
    }

    #[test]
    fn a_full_disk_breaks_no_chain() {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(directory.path())
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            // only root can mount a small file system
            return;
        }
        let mut writer = writer(directory.path());
        for count in 0..200 {
            write(&mut writer, count);
        }
        let lost = writer.lost;
        let full = checked(directory.path());
        let again = {
            let path = directory.path().join("audit.jsonl");
            let _moved = fs::remove_file(&path);
            write(&mut writer, 1);
            checked(directory.path())
        };
        let _left = Command::new("umount").arg("-l").arg(directory.path()).status();
        assert!(lost > 10, "{lost}");
        assert_eq!(full.map(|(_, torn, _)| torn), Ok(0));
        assert_eq!(again.map(|(lines, torn, _)| (lines, torn)), Ok((2, 0)));
    }
}
