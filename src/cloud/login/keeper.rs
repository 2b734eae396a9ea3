//! Keeps the login across restarts beside it: a slow disk holds nothing up, and a broken one is only complained of.

use std::time::Duration;

use secrecy::SecretString;
use tokio::task::JoinHandle;

use super::kept::KeepError;
use super::kept::{Kept, KeptLogin, KeptRejections};
use crate::cloud::rest::Tokens;
use crate::config::Pincode;

/// See the module.
pub(crate) struct Keeper {
    login: Option<KeptLogin>,
    pincode: Pincode,
    saving: Option<JoinHandle<Result<(), KeepError>>>,
    /// What came while the last was being saved.
    unsaved: Unsaved,
    /// How many rejections are kept, or about to be.
    rejections: u32,
    /// It was said that nothing is kept.
    has_complained: bool,
}

#[derive(Default)]
struct Unsaved {
    tokens: Option<Tokens>,
    rejections: Option<u32>,
}

impl Keeper {
    /// Keeps there; without a place nothing is kept.
    pub(crate) fn new(login: Option<KeptLogin>, pincode: Pincode) -> Self {
        Self {
            login,
            pincode,
            saving: None,
            unsaved: Unsaved::default(),
            rejections: 0,
            has_complained: false,
        }
    }

    /// What was kept before the restart: tokens, and logins that were rejected.
    pub(crate) async fn load(&mut self) -> (Option<Kept>, Option<KeptRejections>) {
        let Some(login) = self.login.clone() else { return (None, None) };
        let pincode = self.pincode.clone();
        let load = move || {
            let rejections = login.load_rejections(&pincode);
            if !matches!(rejections, Ok(Some(_))) {
                // what is told of another pincode is over; if it cannot be removed, it does no harm
                let _may_not_be_there = login.save_rejections(&pincode, 0);
            }
            (login.load(), rejections)
        };
        let Ok((tokens, rejections)) = tokio::task::spawn_blocking(load).await else { return (None, None) };
        let tokens = tokens.unwrap_or_else(|error| {
            tracing::warn!("the login from before the restart cannot be used: {error}; logging in anew");
            None
        });
        let rejections = rejections.unwrap_or_else(|error| {
            tracing::warn!("whether the login was rejected before the restart is not known: {error}");
            None
        });
        self.rejections = rejections.map_or(0, |rejections| rejections.count);
        (tokens, rejections)
    }

    pub(crate) fn save(&mut self, access: &SecretString, refresh: Option<&SecretString>, lifetime: Duration) {
        if self.login.is_some() {
            let (access, refresh) = (access.clone(), refresh.cloned());
            self.unsaved.tokens = Some(Tokens { access, refresh, lifetime });
            self.start();
        }
    }

    /// So many logins were rejected in a row by now.
    pub(crate) fn save_rejections(&mut self, count: u32) {
        if self.login.is_some() && std::mem::replace(&mut self.rejections, count) != count {
            self.unsaved.rejections = Some(count);
            self.start();
        }
    }

    fn start(&mut self) {
        if self.saving.is_some() || self.unsaved.tokens.is_none() && self.unsaved.rejections.is_none() {
            return;
        }
        let Some(login) = self.login.clone() else { return };
        let (Unsaved { tokens, rejections }, pincode) =
            (std::mem::take(&mut self.unsaved), self.pincode.clone());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let rejections = rejections.map_or(Ok(()), |count| login.save_rejections(&pincode, count));
            let tokens = tokens.map_or(Ok(()), |tokens| login.save(&tokens));
            rejections.and(tokens)
        }));
    }

    /// Waits until what is being saved is; for ever if nothing is. Cancel-safe.
    pub(crate) async fn saved(&mut self) {
        let Some(saving) = &mut self.saving else { return std::future::pending().await };
        let outcome = saving.await;
        self.saving = None;
        match outcome {
            Ok(Ok(())) => self.has_complained = false,
            Ok(Err(error)) if !std::mem::replace(&mut self.has_complained, true) => {
                tracing::warn!("the login is not kept: {error}; after a restart there will be another");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        self.start();
    }
}
