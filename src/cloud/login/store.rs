//! The login on disk, in files that only the agent's user can read.
//!
//! The files only save a login: if anything is wrong with them, the agent logs in again. Times in them are by
//! the device's clock, which may have jumped, so they only decide which of the stored tokens to try first.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloud::backoff::{FIRST_REJECTION, after_rejections};
use crate::cloud::rest::Tokens;
use crate::cloud::state_file::{StateFileError, read, unix_now, write};
use crate::config::{ChangeTime, Config};

/// The file of the tokens, in the state directory.
const LOGIN_FILE: &str = "login.json";
/// The file of the rejected logins, in the state directory.
const REJECTIONS_FILE: &str = "rejected.json";
/// The version of the files' layout.
const FORMAT: u32 = 1;
/// An access token with no more than this left of its lifetime is not used: the token could expire on its
/// way, and the first refresh follows within seconds anyway.
const MIN_REMAINING: Duration = Duration::from_secs(5);

/// A login loaded from disk.
#[derive(Debug)]
pub struct StoredLogin {
    /// The tokens from the cloud.
    pub tokens: Tokens,
    /// When the tokens were obtained, in seconds since 1970 by the device's clock.
    pub obtained_at: u64,
    /// The latest time that the device's clock showed while it agreed with the cloud's certificate, in
    /// seconds since 1970.
    pub known_time: u64,
}

impl StoredLogin {
    /// The rest of the access token's lifetime by the device's clock. `None` if the token has expired, or if
    /// the clock went backwards, so that the token's age is unknown.
    pub(super) fn remaining(&self, now: u64) -> Option<Duration> {
        let age = Duration::from_secs(now.checked_sub(self.obtained_at)?);
        self.tokens.lifetime.checked_sub(age).filter(|left| *left > MIN_REMAINING)
    }
}

/// The files in which a connector's login to one cloud is stored.
#[derive(Debug, Clone)]
pub struct LoginStore {
    directory: PathBuf,
    connector_uuid: Uuid,
    api_url: String,
    /// Whether the login uses TLS, so that the cloud's certificate confirms the device's clock.
    is_secure: bool,
    pincode_source: PincodeSource,
}

#[derive(Deserialize)]
struct LoginContents {
    format: u32,
    connector_uuid: Uuid,
    api_url: String,
    obtained_at: u64,
    lifetime_seconds: u64,
    known_time: u64,
    access_token: SecretString,
    refresh_token: Option<SecretString>,
}

#[derive(Serialize)]
struct LoginContentsRef<'a> {
    format: u32,
    connector_uuid: Uuid,
    api_url: &'a str,
    obtained_at: u64,
    lifetime_seconds: u64,
    known_time: u64,
    access_token: &'a str,
    refresh_token: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct RejectionContents {
    format: u32,
    connector_uuid: Uuid,
    api_url: String,
    /// Absent in a file that an earlier version wrote, which counts as another pincode's.
    #[serde(default)]
    pincode_source: Option<PincodeSource>,
    count: u32,
    rejected_at: u64,
}

/// What is kept about the rejected pincode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PincodeSource {
    /// Its file was last changed at this time.
    ChangedAt(ChangeTime),
    /// Nothing.
    Unknown,
}

/// The logins that were rejected in a row before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredRejections {
    /// How many logins were rejected.
    pub(crate) count: u32,
    /// When the last login was rejected, in seconds since 1970 by the device's clock.
    pub(crate) rejected_at: u64,
    /// Whether the pincode may have been corrected since.
    pub(crate) may_be_corrected: bool,
}

impl StoredRejections {
    /// The remaining wait before the next login; at most one minute if the clock went backwards, or if the
    /// pincode may have been corrected. One minute is enough to prevent a flood of logins, however often the
    /// agent restarts.
    pub(crate) fn wait_left(&self, now: u64) -> Duration {
        let wait = after_rejections(self.count);
        let wait = if self.may_be_corrected { wait.min(FIRST_REJECTION) } else { wait };
        match now.checked_sub(self.rejected_at) {
            Some(age) => wait.saturating_sub(Duration::from_secs(age)),
            None => wait.min(FIRST_REJECTION),
        }
    }
}

impl LoginStore {
    /// The store in the configuration's state directory; `None` if the configuration has none.
    pub fn new(config: &Config) -> Option<Self> {
        let api_url = config.cloud.api_url.as_url();
        Some(Self {
            directory: config.connector.state_directory.clone()?,
            connector_uuid: config.connector.uuid.get(),
            api_url: api_url.to_string(),
            is_secure: api_url.scheme() == "https",
            pincode_source: config
                .pincode_changed_at()
                .map_or(PincodeSource::Unknown, PincodeSource::ChangedAt),
        })
    }

    /// Loads the login. `None` if none is stored, or if it belongs to another connector or another cloud.
    pub fn load(&self) -> Result<Option<StoredLogin>, StateFileError> {
        let path = self.directory.join(LOGIN_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        // do not keep the error: it would quote the file
        let contents: LoginContents =
            serde_json::from_slice(&text).map_err(|_| StateFileError::Damaged(path.clone()))?;
        if contents.format != FORMAT || contents.access_token.expose_secret().is_empty() {
            return Err(StateFileError::Damaged(path));
        }
        if contents.connector_uuid != self.connector_uuid || contents.api_url != self.api_url {
            return Ok(None);
        }
        let tokens = Tokens {
            access: contents.access_token,
            refresh: contents.refresh_token,
            id: None,
            lifetime: Duration::from_secs(contents.lifetime_seconds),
        };
        let LoginContents { obtained_at, known_time, .. } = contents;
        Ok(Some(StoredLogin { tokens, obtained_at, known_time }))
    }

    /// Saves tokens that were obtained now, replacing the stored ones. After a crash at any moment, either
    /// the old or the new tokens are there.
    pub fn save(&self, tokens: &Tokens) -> Result<(), StateFileError> {
        let now = unix_now();
        let before = self.load().ok().flatten().map_or(0, |login| login.known_time);
        let contents = LoginContentsRef {
            format: FORMAT,
            connector_uuid: self.connector_uuid,
            api_url: &self.api_url,
            obtained_at: now,
            lifetime_seconds: tokens.lifetime.as_secs(),
            known_time: if self.is_secure { before.max(now) } else { before },
            access_token: tokens.access.expose_secret(),
            refresh_token: tokens.refresh.as_ref().map(ExposeSecret::expose_secret),
        };
        let secrets = contents.access_token.len() + contents.refresh_token.map_or(0, str::len);
        // with enough room, because growing would leave a copy of the secrets in memory
        let mut text = Zeroizing::new(Vec::with_capacity(1024 + self.api_url.len() + 6 * secrets));
        serde_json::to_writer(&mut *text, &contents)
            .map_err(|error| self.not_written(LOGIN_FILE, error.into()))?;
        write(&self.directory, LOGIN_FILE, &text)
    }

    /// Loads the rejected logins. `None` if none are stored, or if the source of the pincode has changed since.
    pub(super) fn load_rejections(&self) -> Result<Option<StoredRejections>, StateFileError> {
        let path = self.directory.join(REJECTIONS_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        let contents: RejectionContents =
            serde_json::from_slice(&text).map_err(|_| StateFileError::Damaged(path.clone()))?;
        if contents.format != FORMAT {
            return Err(StateFileError::Damaged(path));
        }
        let is_ours = contents.connector_uuid == self.connector_uuid
            && contents.api_url == self.api_url
            && contents.pincode_source == Some(self.pincode_source);
        let RejectionContents { count, rejected_at, .. } = contents;
        let may_be_corrected = self.pincode_source == PincodeSource::Unknown;
        Ok((is_ours && count > 0).then_some(StoredRejections { count, rejected_at, may_be_corrected }))
    }

    /// Saves that `count` logins in a row were rejected, the last one now. Removes the file if `count` is 0.
    pub(super) fn save_rejections(&self, count: u32) -> Result<(), StateFileError> {
        if count == 0 {
            return match fs::remove_file(self.directory.join(REJECTIONS_FILE)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed.map_err(|source| self.not_written(REJECTIONS_FILE, source)),
            };
        }
        let contents = RejectionContents {
            format: FORMAT,
            connector_uuid: self.connector_uuid,
            api_url: self.api_url.clone(),
            pincode_source: Some(self.pincode_source),
            count,
            rejected_at: unix_now(),
        };
        let text =
            serde_json::to_vec(&contents).map_err(|error| self.not_written(REJECTIONS_FILE, error.into()))?;
        write(&self.directory, REJECTIONS_FILE, &text)
    }

    fn not_written(&self, file: &str, source: io::Error) -> StateFileError {
        StateFileError::Write { path: self.directory.join(file), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_access_token_is_good_for_the_rest_of_its_lifetime() {
        let login = stored(1_000_000, 3600);
        assert_eq!(login.remaining(1_000_000), Some(Duration::from_secs(3600)));
        assert_eq!(login.remaining(1_003_000), Some(Duration::from_secs(600)));
        assert_eq!(login.remaining(1_003_598), None, "too little is left");
        assert_eq!(login.remaining(1_003_600), None);
    }

    #[test]
    fn after_a_jump_of_the_clock_the_tokens_age_is_unknown() {
        let login = stored(1_000_000, 3600);
        assert_eq!(login.remaining(0), None, "booted in 1970");
        assert_eq!(login.remaining(999_999), None);
        assert_eq!(login.remaining(u64::MAX), None);
    }

    #[test]
    fn the_rest_of_a_wait_goes_by_the_clock_and_is_a_minute_if_the_clock_went_backwards() {
        let rejections = StoredRejections { count: 4, rejected_at: 1_000_000, may_be_corrected: false };
        let left = |now| rejections.wait_left(now).as_secs();
        assert_eq!([1_000_000, 1_000_100, 1_000_480, 2_000_000].map(left), [480, 380, 0, 0]);
        assert_eq!([0, 999_999].map(left), [60, 60], "booted in 1970");
    }

    #[test]
    fn a_pincode_that_may_be_corrected_waits_a_minute_at_most() {
        let rejections = StoredRejections { count: 9, rejected_at: 1_000_000, may_be_corrected: true };
        let left = |now| rejections.wait_left(now).as_secs();
        assert_eq!([1_000_000, 1_000_040, 1_000_060, 0].map(left), [60, 20, 0, 60]);
    }

    fn stored(obtained_at: u64, lifetime: u64) -> StoredLogin {
        let lifetime = Duration::from_secs(lifetime);
        let tokens = Tokens { access: "a".into(), refresh: None, id: None, lifetime };
        StoredLogin { tokens, obtained_at, known_time: 0 }
    }
}
