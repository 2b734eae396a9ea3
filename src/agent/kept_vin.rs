//! The VIN that was read last, which is kept across restarts: after a start with the ignition off, no ECU is asked.
//!
//! The file only saves a question: if anything is wrong with it, the VIN is unknown until it is read.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::cloud::state_file::{StateFileError, read, unix_now, write};
use crate::config::Config;
use crate::protocol::vin::Vin;

/// The file of the VIN, in the state directory.
const VIN_FILE: &str = "vin.json";
/// The version of the file's layout.
const FORMAT: u32 = 1;
/// A clock that shows a time before 2024 was not set since the device has power.
const CLOCK_IS_SET: u64 = 1_704_067_200;
/// The least time between two savings of one VIN. An adapter that comes and goes causes a reading every five seconds,
/// which must not wear out the storage.
const SAVE_PAUSE: Duration = Duration::from_secs(60);

/// A VIN, and when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptVin {
    pub(super) vin: Vin,
    /// Seconds since 1970 by the device's clock.
    read_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u32,
    connector_uuid: Uuid,
    vin: Vin,
    read_at: u64,
}

impl KeptVin {
    /// A VIN that was read now.
    pub(super) fn read_now(vin: Vin) -> Self {
        Self { vin, read_at: unix_now() }
    }

    /// The time since the VIN was read.
    pub(super) fn age(&self) -> Option<Duration> {
        self.age_at(unix_now())
    }

    /// The age at this time, in seconds since 1970; `None` if the clock was not set, or went backwards.
    fn age_at(&self, now: u64) -> Option<Duration> {
        let age = now.checked_sub(self.read_at).filter(|_| self.read_at >= CLOCK_IS_SET)?;
        Some(Duration::from_secs(age))
    }
}

/// The file in which the VIN is kept.
#[derive(Debug, Clone)]
pub(super) struct VinStore {
    directory: PathBuf,
    connector_uuid: Uuid,
}

impl VinStore {
    /// The store in the configuration's state directory; `None` if the configuration has none.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let directory = config.connector.state_directory.clone()?;
        Some(Self { directory, connector_uuid: config.connector.uuid.get() })
    }

    /// Loads the VIN. `None` if none is stored, or if it belongs to another connector.
    pub(super) fn load(&self) -> Result<Option<KeptVin>, StateFileError> {
        let path = self.directory.join(VIN_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|_| StateFileError::Damaged(path.clone()))?;
        if contents.format != FORMAT {
            return Err(StateFileError::Damaged(path));
        }
        let Contents { connector_uuid, vin, read_at, .. } = contents;
        Ok((connector_uuid == self.connector_uuid).then_some(KeptVin { vin, read_at }))
    }

    fn save(&self, kept: KeptVin) -> Result<(), StateFileError> {
        let KeptVin { vin, read_at } = kept;
        let contents = Contents { format: FORMAT, connector_uuid: self.connector_uuid, vin, read_at };
        let text = serde_json::to_vec(&contents).map_err(|error| StateFileError::Write {
            path: self.directory.join(VIN_FILE),
            source: error.into(),
        })?;
        write(&self.directory, VIN_FILE, &text)
    }

    fn remove(&self) -> Result<(), StateFileError> {
        let path = self.directory.join(VIN_FILE);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(StateFileError::Write { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Saves the VIN in the background, so that a slow disk delays nothing; without a VIN, removes the file. Ends when the
/// sender of the VINs is dropped, after the last one is saved.
pub(super) async fn keep(store: VinStore, mut vins: watch::Receiver<Option<KeptVin>>) {
    // `None` until the first saving: the file may have any content
    let mut saved: Option<Option<KeptVin>> = None;
    let mut has_warned = false;
    while vins.changed().await.is_ok() {
        let kept = *vins.borrow_and_update();
        if saved.is_some_and(|saved| is_fresh(saved, kept)) {
            continue;
        }
        let store = store.clone();
        let save = move || kept.map_or_else(|| store.remove(), |kept| store.save(kept));
        match tokio::task::spawn_blocking(save).await {
            Ok(Ok(())) => saved = Some(kept),
            Ok(Err(error)) if !std::mem::replace(&mut has_warned, true) => {
                tracing::warn!(
                    "cannot save the VIN: {error}; after a restart it is unknown until it is read"
                );
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Whether the file need not be written for this VIN.
fn is_fresh(saved: Option<KeptVin>, kept: Option<KeptVin>) -> bool {
    match (saved, kept) {
        (Some(saved), Some(kept)) => {
            saved.vin == kept.vin && kept.read_at.saturating_sub(saved.read_at) < SAVE_PAUSE.as_secs()
        }
        (saved, kept) => saved == kept,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    const VIN: &str = "WVWZZZAUZEW000001";
    const NOW: u64 = CLOCK_IS_SET + 1000;

    fn store(directory: &Path) -> VinStore {
        VinStore { directory: directory.join("state"), connector_uuid: Uuid::from_u128(1) }
    }

    fn kept(read_at: u64) -> KeptVin {
        KeptVin { vin: VIN.parse().unwrap(), read_at }
    }

    #[test]
    fn a_kept_vin_is_loaded_again_by_the_same_connector_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        assert_eq!(store.load().unwrap(), None);
        store.save(kept(NOW)).unwrap();
        assert_eq!(store.load().unwrap(), Some(kept(NOW)));
        let mode = fs::metadata(store.directory.join(VIN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = VinStore { connector_uuid: Uuid::from_u128(2), ..store };
        assert_eq!(other.load().unwrap(), None);
    }

    #[test]
    fn a_damaged_file_of_the_vin_is_an_error_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        store.save(kept(NOW)).unwrap();
        let path = store.directory.join(VIN_FILE);
        for text in ["", "{", r#"{"format":1,"vin":"11111111111111111"}"#, "[1]"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(store.load(), Err(StateFileError::Damaged(_))), "{text}");
        }
        store.save(kept(NOW + 1)).unwrap();
        assert_eq!(store.load().unwrap(), Some(kept(NOW + 1)));
    }

    #[test]
    fn the_age_of_a_kept_vin_is_unknown_after_a_jump_of_the_clock() {
        assert_eq!(kept(NOW).age_at(NOW + 60), Some(Duration::from_secs(60)));
        assert_eq!(kept(NOW).age_at(NOW - 1), None, "the clock went backwards");
        assert_eq!(kept(100).age_at(NOW), None, "read before the clock was set");
    }

    #[test]
    fn the_vin_is_saved_on_a_separate_thread_and_once_a_minute_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (vins, receiver) = watch::channel(None);
            let keeping = tokio::spawn(keep(store.clone(), receiver));
            // the only thread that may block is busy, as with a slow disk
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            vins.send_replace(Some(kept(NOW)));
            for _ in 0..100 {
                tokio::task::yield_now().await;
                assert_eq!(store.load().unwrap(), None, "the runtime's own thread has saved");
            }
            vins.send_replace(Some(kept(NOW + 59)));
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            drop(vins);
            keeping.await.unwrap();
        });
        assert_eq!(store.load().unwrap(), Some(kept(NOW)));
    }

    #[test]
    fn the_file_of_a_vin_that_no_longer_counts_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        store.save(kept(NOW)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (vins, receiver) = watch::channel(None);
            let keeping = tokio::spawn(keep(store.clone(), receiver));
            vins.send_replace(None);
            drop(vins);
            keeping.await.unwrap();
        });
        assert_eq!(store.load().unwrap(), None);
        store.remove().unwrap();
    }
}
