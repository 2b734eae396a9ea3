//! What is kept of a login across restarts, in a file that nobody else can read.
//!
//! The file is a help and nothing more: whatever is wrong with it, the agent logs in anew. Times in it are by the
//! device's clock, which may have jumped, so that they only decide what is tried first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloud::backoff::{FIRST_REJECTION, after_rejections};
use crate::cloud::rest::Tokens;
use crate::config::{Config, Pincode};

/// The file in the state directory.
const FILE: &str = "login.json";
/// What is told of logins that were rejected, in the same directory.
const REJECTIONS_FILE: &str = "rejected.json";
/// No such file is longer, in bytes.
const MAX_LENGTH: u64 = 64 << 10;
/// The layout of the file.
const FORMAT: u32 = 1;
/// An access token is not worth trying if it lives no longer than this.
const TOO_SHORT: Duration = Duration::from_secs(5);

/// Why nothing is kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The directory cannot be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could have read or written the file.
    #[error("{} is not the agent's alone (owner {owner}, mode {mode:04o})", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The file's contents are not what the agent writes.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
}

/// A login as it was kept.
#[derive(Debug)]
pub struct Kept {
    /// What the cloud gave.
    pub tokens: Tokens,
    /// When, in seconds since 1970 by the device's clock.
    pub obtained_at: u64,
    /// The latest time that the device's clock is known to have shown while it agreed with the cloud's certificate.
    pub known_time: u64,
}

impl Kept {
    /// For how long the access token is good, as far as the device's clock can tell: `None` if it has expired, or if
    /// the clock went back, so that its age is unknown.
    pub fn remaining(&self, now: u64) -> Option<Duration> {
        let age = Duration::from_secs(now.checked_sub(self.obtained_at)?);
        self.tokens.lifetime.checked_sub(age).filter(|left| *left > TOO_SHORT)
    }
}

/// Where a connector's login to one cloud is kept.
#[derive(Debug, Clone)]
pub struct KeptLogin {
    directory: PathBuf,
    connector_uuid: Uuid,
    api_url: String,
    /// Whether the cloud's certificate vouches for the clock.
    is_secure: bool,
}

#[derive(Deserialize)]
struct Contents {
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
struct ContentsRef<'a> {
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
    pincode_check: u8,
    count: u32,
    rejected_at: u64,
}

/// Logins that were rejected in a row before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptRejections {
    /// How many.
    pub count: u32,
    /// When the last one was, in seconds since 1970 by the device's clock.
    pub rejected_at: u64,
}

impl KeptRejections {
    /// How long the next login has to wait still. Where the clock went back, nobody knows how long ago the last one was:
    /// then it is the first wait, which no number of restarts makes a flood of logins.
    pub fn wait_left(&self, now: u64) -> Duration {
        let wait = after_rejections(self.count);
        match now.checked_sub(self.rejected_at) {
            Some(age) => wait.saturating_sub(Duration::from_secs(age)),
            None => wait.min(FIRST_REJECTION),
        }
    }
}

impl KeptLogin {
    /// In the configuration's state directory; `None` if it names none.
    pub fn new(config: &Config) -> Option<Self> {
        let api_url = config.cloud.api_url.as_url();
        Some(Self {
            directory: config.connector.state_directory.clone()?,
            connector_uuid: config.connector.uuid.get(),
            api_url: api_url.to_string(),
            is_secure: api_url.scheme() == "https",
        })
    }

    /// What was kept; `None` if nothing was, or if it is another connector's or for another cloud.
    pub fn load(&self) -> Result<Option<Kept>, KeepError> {
        let path = self.directory.join(FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        // the error would quote the file
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|_| KeepError::Damaged(path.clone()))?;
        if contents.format != FORMAT || contents.access_token.expose_secret().is_empty() {
            return Err(KeepError::Damaged(path));
        }
        if contents.connector_uuid != self.connector_uuid || contents.api_url != self.api_url {
            return Ok(None);
        }
        let tokens = Tokens {
            access: contents.access_token,
            refresh: contents.refresh_token,
            lifetime: Duration::from_secs(contents.lifetime_seconds),
        };
        let Contents { obtained_at, known_time, .. } = contents;
        Ok(Some(Kept { tokens, obtained_at, known_time }))
    }

    /// Keeps tokens that were obtained now, in place of what was kept before. After a crash at any moment, either the
    /// old ones are there or the new ones.
    pub fn save(&self, tokens: &Tokens) -> Result<(), KeepError> {
        let now = unix_now();
        let before = self.load().ok().flatten().map_or(0, |kept| kept.known_time);
        let contents = ContentsRef {
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
        // with room, so that no copy is left behind by growing
        let mut text = Zeroizing::new(Vec::with_capacity(1024 + self.api_url.len() + 6 * secrets));
        serde_json::to_writer(&mut *text, &contents).map_err(|error| self.not_written(FILE, error.into()))?;
        self.write(FILE, &text)
    }

    /// The logins that were rejected with this pincode; `None` if there were none, or with another one, which somebody
    /// has corrected since.
    pub fn load_rejections(&self, pincode: &Pincode) -> Result<Option<KeptRejections>, KeepError> {
        let path = self.directory.join(REJECTIONS_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        let contents: RejectionContents =
            serde_json::from_slice(&text).map_err(|_| KeepError::Damaged(path.clone()))?;
        if contents.format != FORMAT {
            return Err(KeepError::Damaged(path));
        }
        let is_ours = contents.connector_uuid == self.connector_uuid
            && contents.api_url == self.api_url
            && contents.pincode_check == self.check(pincode);
        let RejectionContents { count, rejected_at, .. } = contents;
        Ok((is_ours && count > 0).then_some(KeptRejections { count, rejected_at }))
    }

    /// Keeps that so many logins in a row were rejected, the last one now; forgets it where there were none.
    pub fn save_rejections(&self, pincode: &Pincode, count: u32) -> Result<(), KeepError> {
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
            pincode_check: self.check(pincode),
            count,
            rejected_at: unix_now(),
        };
        let text =
            serde_json::to_vec(&contents).map_err(|error| self.not_written(REJECTIONS_FILE, error.into()))?;
        self.write(REJECTIONS_FILE, &text)
    }

    /// A check of the pincode (FNV-1a, folded) that tells one in 256 from another: a corrected one is noticed, as a rule,
    /// and the file is no help in finding the one that was rejected.
    fn check(&self, pincode: &Pincode) -> u8 {
        let bytes = self.connector_uuid.as_bytes().iter().chain(pincode.expose().as_bytes());
        let hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        hash.to_be_bytes().into_iter().fold(0, |check, byte| check ^ byte)
    }

    fn not_written(&self, file: &str, source: io::Error) -> KeepError {
        KeepError::Write { path: self.directory.join(file), source }
    }

    /// Has the file take the place of the one before.
    fn write(&self, file: &str, text: &[u8]) -> Result<(), KeepError> {
        make_directory(&self.directory)?;
        let new = self.directory.join(format!("{file}.new"));
        let written = replace(&new, &self.directory.join(file), text);
        if written.is_err() {
            // what is left of it would take the room that others lack
            let _may_not_be_there = fs::remove_file(&new);
        }
        written.map_err(|source| KeepError::Write { path: new, source })
    }
}

/// Seconds since 1970 by the device's clock.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeepError> {
    let failed = |source| KeepError::Read { path: path.to_owned(), source };
    // a link is not followed, and a FIFO not waited for
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
        return Err(KeepError::Damaged(path.to_owned()));
    }
    let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if mode & 0o077 != 0 || !is_ours {
        return Err(KeepError::Exposed { path: path.to_owned(), owner, mode });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_LENGTH as usize + 1));
    file.take(MAX_LENGTH + 1).read_to_end(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Makes the directory if it is not there; one that is there stays as it is.
fn make_directory(path: &Path) -> Result<(), KeepError> {
    let failed = |source| KeepError::Directory { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

fn replace(new: &Path, file: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // made anew, so that nobody else has it open, and no link is followed
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    written.write_all(text)?;
    written.sync_all()?;
    drop(written);
    fs::rename(new, file)?;
    if let Some(directory) = file.parent() {
        // not every file system can; then the old file may be back after a power cut, which is as good
        let _old_or_new = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_access_token_is_good_for_what_is_left_of_its_life() {
        let kept = kept(1_000_000, 3600);
        assert_eq!(kept.remaining(1_000_000), Some(Duration::from_secs(3600)));
        assert_eq!(kept.remaining(1_003_000), Some(Duration::from_secs(600)));
        assert_eq!(kept.remaining(1_003_598), None, "not worth trying");
        assert_eq!(kept.remaining(1_003_600), None);
    }

    #[test]
    fn a_clock_that_jumped_tells_nothing_of_the_tokens_age() {
        let kept = kept(1_000_000, 3600);
        assert_eq!(kept.remaining(0), None, "booted in 1970");
        assert_eq!(kept.remaining(999_999), None);
        assert_eq!(kept.remaining(u64::MAX), None);
    }

    #[test]
    fn what_is_left_of_a_wait_goes_by_the_clock_and_is_a_minute_if_that_went_back() {
        let rejections = KeptRejections { count: 4, rejected_at: 1_000_000 };
        let left = |now| rejections.wait_left(now).as_secs();
        assert_eq!([1_000_000, 1_000_100, 1_000_480, 2_000_000].map(left), [480, 380, 0, 0]);
        assert_eq!([0, 999_999].map(left), [60, 60], "booted in 1970");
    }

    fn kept(obtained_at: u64, lifetime: u64) -> Kept {
        let lifetime = Duration::from_secs(lifetime);
        let tokens = Tokens { access: "a".into(), refresh: None, lifetime };
        Kept { tokens, obtained_at, known_time: 0 }
    }
}
