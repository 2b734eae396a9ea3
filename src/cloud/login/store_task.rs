//! Saves the login in the background, so that a slow disk delays nothing. Disk errors are logged, never
//! fatal.

use std::time::Duration;

use secrecy::SecretString;
use tokio::task::JoinHandle;

use super::store::{LoginStore, StoredLogin, StoredRejections};
use crate::cloud::rest::Tokens;
use crate::cloud::state_file::StateFileError;

/// Loads and saves the login on the runtime's blocking threads, one access at a time.
pub(super) struct StoreTask {
    /// Without a store nothing is loaded or saved.
    store: Option<LoginStore>,
    saving: Option<JoinHandle<Result<(), StateFileError>>>,
    /// Changes made while the previous save was running; newer ones replace older ones.
    unsaved: Unsaved,
    /// The number of rejections stored, or about to be stored.
    rejections: u32,
    /// A warning about the last failure has been logged.
    has_warned: bool,
}

#[derive(Default)]
struct Unsaved {
    tokens: Option<Tokens>,
    rejections: Option<u32>,
}

impl StoreTask {
    pub(super) fn new(store: Option<LoginStore>) -> Self {
        Self { store, saving: None, unsaved: Unsaved::default(), rejections: 0, has_warned: false }
    }

    /// Loads the login and the rejections from before the restart.
    pub(super) async fn load(&mut self) -> (Option<StoredLogin>, Option<StoredRejections>) {
        let Some(store) = self.store.clone() else { return (None, None) };
        let load = move || {
            let rejections = store.load_rejections();
            if !matches!(rejections, Ok(Some(_))) {
                // rejections of another pincode no longer matter, and do no harm if they cannot be removed
                let _may_not_exist = store.save_rejections(0);
            }
            (store.load(), rejections)
        };
        let Ok((login, rejections)) = tokio::task::spawn_blocking(load).await else { return (None, None) };
        let login = login.unwrap_or_else(|error| {
            tracing::warn!("cannot use the stored login: {error}; logging in again");
            None
        });
        let rejections = rejections.unwrap_or_else(|error| {
            tracing::warn!("cannot read whether the login was rejected before the restart: {error}");
            None
        });
        self.rejections = rejections.map_or(0, |rejections| rejections.count);
        (login, rejections)
    }

    /// Saves these tokens in the background.
    pub(super) fn save(&mut self, access: &SecretString, refresh: Option<&SecretString>, lifetime: Duration) {
        if self.store.is_some() {
            let (access, refresh) = (access.clone(), refresh.cloned());
            self.unsaved.tokens = Some(Tokens { access, refresh, id: None, lifetime });
            self.start_saving();
        }
    }

    /// Saves in the background how many logins in a row were rejected.
    pub(super) fn save_rejections(&mut self, count: u32) {
        if self.store.is_some() && std::mem::replace(&mut self.rejections, count) != count {
            self.unsaved.rejections = Some(count);
            self.start_saving();
        }
    }

    fn start_saving(&mut self) {
        if self.saving.is_some() || self.unsaved.tokens.is_none() && self.unsaved.rejections.is_none() {
            return;
        }
        let Some(store) = self.store.clone() else { return };
        let Unsaved { tokens, rejections } = std::mem::take(&mut self.unsaved);
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let rejections = rejections.map_or(Ok(()), |count| store.save_rejections(count));
            let tokens = tokens.map_or(Ok(()), |tokens| store.save(&tokens));
            rejections.and(tokens)
        }));
    }

    /// Waits until the running save has finished; forever if none is running. Cancel-safe.
    pub(super) async fn saved(&mut self) {
        let Some(saving) = &mut self.saving else { return std::future::pending().await };
        let outcome = saving.await;
        self.saving = None;
        match outcome {
            Ok(Ok(())) => self.has_warned = false,
            Ok(Err(error)) if !std::mem::replace(&mut self.has_warned, true) => {
                tracing::warn!("cannot save the login: {error}; the agent logs in again after a restart");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        self.start_saving();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::config::{ApiUrl, Config, WebsocketUrl};

    #[test]
    fn the_login_is_saved_on_a_separate_thread() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(
            "5f3d760d-ade2-4a19-aea4-36e097678ae3".parse().unwrap(),
            ApiUrl::try_from("https://cloud.example".to_owned()).unwrap(),
            WebsocketUrl::try_from("wss://cloud.example".to_owned()).unwrap(),
        );
        config.connector.state_directory = Some(directory.path().to_owned());
        let mut task = StoreTask::new(LoginStore::new(&config));
        let is_saved = || directory.path().join("login.json").exists();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            // the only thread that may block is busy, as with a slow disk
            let (release, released) = mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            task.save(&"access".into(), None, Duration::from_secs(3600));
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..100 {
                assert!(std::pin::pin!(task.saved()).poll(&mut cx).is_pending());
                assert!(!is_saved(), "the runtime's own thread has saved");
                tokio::task::yield_now().await;
            }
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            task.saved().await;
            assert!(is_saved());
        });
    }
}
