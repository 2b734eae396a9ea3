//! The tokens of clients: what each one grants, and for how long. Pure; time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The lifetime of a controller's token: the client asks for the next one shortly before.
const CONTROLLER: Duration = Duration::from_secs(5400);
/// The lifetime of the function broker's tokens, of session and of monitor tokens, as the client expects.
const SHORT: Duration = Duration::from_secs(300);
/// The lifetime of an authentication token. The client's documents name none; a script uses the token within seconds.
const AUTHENTICATION: Duration = Duration::from_secs(300);
/// How long an expired token is remembered, so that the refusal can name the reason.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Part of a session: the session itself is context 0, and the functions that it calls have contexts of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) session: Uuid,
    pub(super) context: u32,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grant {
    /// Starting and managing the sessions of a partner.
    Controller { partner: String },
    /// Hosting and calling functions in the name of a partner.
    Broker { partner: String },
    /// Beginning to work in a context, once.
    Authentication(Place),
    /// Working in a context.
    Session(Place),
    /// Watching a context.
    Monitor(Place),
}

impl Grant {
    fn lifetime(&self) -> Duration {
        match self {
            Self::Controller { .. } => CONTROLLER,
            Self::Authentication(_) => AUTHENTICATION,
            Self::Broker { .. } | Self::Session(_) | Self::Monitor(_) => SHORT,
        }
    }

    /// The token's name in messages.
    fn name(&self) -> &'static str {
        match self {
            Self::Controller { .. } => "a session controller token",
            Self::Broker { .. } => "a function broker token",
            Self::Authentication(_) => "an authentication token",
            Self::Session(_) => "a session token",
            Self::Monitor(_) => "a monitor token",
        }
    }
}

/// Why a token does not allow a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the call has no token; send \"authorization: Bearer TOKEN\" in its metadata")]
    Missing,
    #[error("this gateway does not know the token")]
    Unknown,
    #[error("{0} has expired")]
    Expired(&'static str),
    #[error("the authentication token has been used before; each one is valid once")]
    Used,
    #[error("{given} does not allow this call, which needs {needed}")]
    Kind { given: &'static str, needed: &'static str },
}

#[derive(Debug)]
struct Entry {
    grant: Grant,
    expires: Instant,
    used: bool,
}

/// The tokens that have been issued.
#[derive(Debug)]
pub(super) struct Tokens {
    entries: HashMap<String, Entry>,
    random: fn() -> String,
}

impl Tokens {
    /// `random` makes a text that cannot be guessed.
    pub(super) fn new(random: fn() -> String) -> Self {
        Self { entries: HashMap::new(), random }
    }

    /// Issues a token, and says when it expires.
    pub(super) fn issue(&mut self, now: Instant, grant: Grant) -> (String, Instant) {
        let expires = now + grant.lifetime();
        let token = (self.random)();
        self.entries.insert(token.clone(), Entry { grant, expires, used: false });
        (token, expires)
    }

    fn entry(&mut self, now: Instant, token: &str) -> Result<&mut Entry, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let entry = self.entries.get_mut(token).ok_or(TokenError::Unknown)?;
        if entry.used {
            return Err(TokenError::Used);
        }
        if entry.expires <= now {
            return Err(TokenError::Expired(entry.grant.name()));
        }
        Ok(entry)
    }

    /// The partner of a session controller token.
    pub(super) fn controller(&mut self, now: Instant, token: &str) -> Result<String, TokenError> {
        match &self.entry(now, token)?.grant {
            Grant::Controller { partner } => Ok(partner.clone()),
            other => Err(TokenError::Kind { given: other.name(), needed: "a session controller token" }),
        }
    }

    /// The partner of a function broker token.
    pub(super) fn broker(&mut self, now: Instant, token: &str) -> Result<String, TokenError> {
        match &self.entry(now, token)?.grant {
            Grant::Broker { partner } => Ok(partner.clone()),
            other => Err(TokenError::Kind { given: other.name(), needed: "a function broker token" }),
        }
    }

    /// The place of a session token.
    pub(super) fn session(&mut self, now: Instant, token: &str) -> Result<Place, TokenError> {
        match self.entry(now, token)?.grant {
            Grant::Session(place) => Ok(place),
            ref other => Err(TokenError::Kind { given: other.name(), needed: "a session token" }),
        }
    }

    /// The place of a session token, or of an authentication token that has not been used.
    pub(super) fn session_or_authentication(
        &mut self,
        now: Instant,
        token: &str,
    ) -> Result<Place, TokenError> {
        match self.entry(now, token)?.grant {
            Grant::Session(place) | Grant::Authentication(place) => Ok(place),
            ref other => Err(TokenError::Kind { given: other.name(), needed: "a session token" }),
        }
    }

    /// The place of a monitor token.
    pub(super) fn monitor(&mut self, now: Instant, token: &str) -> Result<Place, TokenError> {
        match self.entry(now, token)?.grant {
            Grant::Monitor(place) => Ok(place),
            ref other => Err(TokenError::Kind { given: other.name(), needed: "a monitor token" }),
        }
    }

    /// The place of an authentication token that has not been used.
    pub(super) fn authentication(&mut self, now: Instant, token: &str) -> Result<Place, TokenError> {
        match self.entry(now, token)?.grant {
            Grant::Authentication(place) => Ok(place),
            ref other => Err(TokenError::Kind { given: other.name(), needed: "an authentication token" }),
        }
    }

    /// Makes a token unusable, because it has been used.
    pub(super) fn use_up(&mut self, token: &str) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.used = true;
        }
    }

    /// Forgets the tokens that expired long ago.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.expires + REMEMBERED);
    }
}
