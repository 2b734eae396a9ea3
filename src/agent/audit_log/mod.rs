//! The audit in the state directory: a chain of lines, written by a thread of its own.
//!
//! Whatever happens to the files, the agent goes on.

mod file;
mod writer;

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use connector_hal::clock::now;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use file::{audit_files, read_audit_file};

use crate::config::Config;
use crate::policy::audit::{AuditEntry, AuditHash};
use writer::{AuditJob, AuditWriter, Clocks};

/// How many entries may wait for the disk: more than a disk that hangs for some seconds can miss.
const MAX_WAITING: usize = 256;
/// How long the end of a connection waits for the disk. With the farewell to ECUs and devices, an end of the agent takes
/// at most 1.8 s of its two seconds.
const HEAD_TIME: Duration = Duration::from_millis(300);
/// The identifier of this start of the system.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The audit; without a state directory, entries are discarded.
pub(super) struct AuditLog {
    jobs: Option<SyncSender<AuditJob>>,
    /// Entries for which there was no room.
    lost: u64,
}

impl AuditLog {
    /// The audit in the configuration's state directory.
    pub(super) fn new(config: &Config) -> Self {
        let Some(directory) = config.connector.state_directory.clone() else {
            return Self { jobs: None, lost: 0 };
        };
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let (sender, jobs) = sync_channel(MAX_WAITING);
        let writer = AuditWriter::new(directory, boot);
        let started = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&jobs));
        if let Err(error) = &started {
            tracing::warn!("cannot start the thread of the audit: {error}");
        }
        Self { jobs: started.is_ok().then_some(sender), lost: 0 }
    }

    /// Writes an entry, soon.
    pub(super) fn record(&mut self, entry: AuditEntry) {
        let Some(jobs) = &self.jobs else { return };
        let clocks = clocks();
        if self.lost > 0 {
            let lost = AuditJob::Write(Box::new(AuditEntry::lost(clocks.now, self.lost)), clocks);
            if jobs.try_send(lost).is_ok() {
                self.lost = 0;
            }
        }
        if jobs.try_send(AuditJob::Write(Box::new(entry), clocks)).is_err() {
            self.lost += 1;
        }
    }

    /// The head of the chain, when all entries are on the disk; `None` if they cannot be, or not soon.
    pub(super) async fn head(&self) -> Option<AuditHash> {
        let (sender, head) = oneshot::channel();
        self.jobs.as_ref()?.try_send(AuditJob::Head(clocks(), sender)).ok()?;
        let head = timeout(HEAD_TIME, head).await.ok()?.ok()?;
        (head != AuditHash::NONE).then_some(head)
    }
}

fn clocks() -> Clocks {
    let up = clock_gettime(ClockId::Boottime);
    let up = Duration::new(up.tv_sec.unsigned_abs(), u32::try_from(up.tv_nsec).unwrap_or_default());
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Clocks { now: now(), up_ms: milliseconds(up), unix_ms: milliseconds(unix) }
}
