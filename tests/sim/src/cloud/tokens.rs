//! Access and id tokens: JWTs signed with HS256 (RFC 7519), and their claims.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::random;
use super::store::{Role, Subject};

/// The issuer of the tokens: not an address, because the port may change between starts.
const ISSUER: &str = "urn:connector-sim:sandbox-cloud";
/// The header of every token. No other is accepted, so that an attacker cannot choose another `alg`.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Limit of a token's length, in bytes; issued tokens are shorter.
const MAX_LENGTH: usize = 4096;

/// How long the same token answers the client credentials, in seconds, as the documents say.
const REPEATED: i64 = 300;
/// A token of a shorter life than the documented hour is repeated for a shorter time: for this part of its life.
const REPEATED_PART: i64 = 12;

/// A token that client credentials got, and its second and era.
#[derive(Debug, Clone)]
struct Repeated {
    token: String,
    issued_at: i64,
    era: u64,
}

/// The key that signs tokens and upload addresses.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: hmac::Key,
    lifetime: Duration,
    /// Tokens of an earlier era have expired.
    era: Arc<AtomicU64>,
    /// The last token of each client and scope. Both are known names, so that there are few.
    repeated: Arc<Mutex<HashMap<(String, String), Repeated>>>,
}

/// The claims of a token (RFC 7519 section 4.1, and the sandbox's own).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    iat: i64,
    exp: i64,
    jti: String,
    /// `access` or `id`; an id token grants no access.
    token_use: String,
    scope: String,
    role: Role,
    #[serde(default)]
    era: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connector_id: Option<i64>,
}

/// The reasons why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// This cloud did not issue the token.
    #[error("The token was not issued by this cloud.")]
    Invalid,
    /// The token has expired.
    #[error("The token has expired.")]
    Expired,
}

/// The scopes of a role.
pub(crate) fn scope(role: Role) -> &'static str {
    match role {
        Role::Connector => "connector",
        Role::Customer => "customer",
        Role::Operator => "partner operator",
    }
}

impl Signer {
    /// Creates a signer whose access tokens live for `lifetime`.
    pub(crate) fn new(key: &[u8], lifetime: Duration) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { key, lifetime, era: Arc::default(), repeated: Arc::default() }
    }

    /// Makes every token issued so far expire.
    pub(crate) fn expire_all(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Lifetime of access tokens, in seconds.
    pub(crate) fn lifetime_seconds(&self) -> i64 {
        i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX)
    }

    /// Issues an access token at `now` (Unix seconds).
    pub(crate) fn access_token(&self, subject: &Subject, now: i64) -> String {
        self.token(subject, "access", now)
    }

    /// The access token for client credentials at `now` (Unix seconds), with the seconds that it is still valid. For
    /// five minutes, the same credentials get the same token for the same scope.
    pub(crate) fn client_token(&self, subject: &Subject, asked: &str, now: i64) -> (String, i64) {
        let era = self.era.load(Ordering::Acquire);
        let repeated_for = REPEATED.min(self.lifetime_seconds() / REPEATED_PART);
        let mut known = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.entry((subject.id.clone(), asked.to_owned()));
        let is_fresh = |known: &Repeated| {
            known.era == era && (known.issued_at..known.issued_at.saturating_add(repeated_for)).contains(&now)
        };
        let new = || Repeated { token: self.access_token(subject, now), issued_at: now, era };
        let repeated = place.and_modify(|known| *known = if is_fresh(known) { known.clone() } else { new() });
        let repeated = repeated.or_insert_with(new);
        (repeated.token.clone(), repeated.issued_at + self.lifetime_seconds() - now)
    }

    /// Issues an id token at `now` (Unix seconds).
    pub(crate) fn id_token(&self, subject: &Subject, now: i64) -> String {
        self.token(subject, "id", now)
    }

    fn token(&self, subject: &Subject, token_use: &str, now: i64) -> String {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: subject.id.clone(),
            iat: now,
            exp: now.saturating_add(self.lifetime_seconds()),
            jti: random::token(12),
            token_use: token_use.to_owned(),
            scope: scope(subject.role).to_owned(),
            role: subject.role,
            era: self.era.load(Ordering::Acquire),
            connector_id: subject.connector_id,
        };
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signature(&signed);
        format!("{signed}.{signature}")
    }

    /// The subject of an access token, if the token is valid at `now` (Unix seconds).
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Subject, TokenError> {
        if token.len() > MAX_LENGTH {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        if !self.is_signature(signed, signature) {
            return Err(TokenError::Invalid);
        }
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        if URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Invalid)? != HEADER.as_bytes() {
            return Err(TokenError::Invalid);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Invalid)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Invalid)?;
        if claims.iss != ISSUER || claims.token_use != "access" {
            return Err(TokenError::Invalid);
        }
        if claims.exp <= now || claims.era < self.era.load(Ordering::Acquire) {
            return Err(TokenError::Expired);
        }
        Ok(Subject { id: claims.sub, role: claims.role, connector_id: claims.connector_id })
    }

    /// The signature of `text`, URL-safe.
    pub(crate) fn signature(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, text.as_bytes()))
    }

    /// Whether `signature` is the signature of `text`.
    pub(crate) fn is_signature(&self, text: &str, signature: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| hmac::verify(&self.key, text.as_bytes(), &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject { id: "someone".to_owned(), role: Role::Operator, connector_id: None }
    }

    fn signer() -> Signer {
        Signer::new(b"a key of the sandbox", Duration::from_secs(3600))
    }

    #[test]
    fn an_access_token_identifies_its_subject_until_it_expires() {
        let token = signer().access_token(&subject(), 1_000);
        assert_eq!(signer().verify(&token, 1_000), Ok(subject()));
        assert_eq!(signer().verify(&token, 4_599), Ok(subject()));
        assert_eq!(signer().verify(&token, 4_600), Err(TokenError::Expired));
    }

    #[test]
    fn issued_tokens_can_be_made_to_expire_and_new_ones_are_valid() {
        let signer = signer();
        let token = signer.access_token(&subject(), 1_000);
        signer.expire_all();
        assert_eq!(signer.verify(&token, 1_000), Err(TokenError::Expired));
        let next = signer.access_token(&subject(), 1_000);
        assert_eq!(signer.verify(&next, 1_000), Ok(subject()));
    }

    #[test]
    fn client_credentials_get_the_same_token_for_five_minutes() {
        let (signer, other) = (signer(), Subject { id: "other".to_owned(), ..subject() });
        let (first, valid) = signer.client_token(&subject(), "", 1_000);
        assert_eq!(valid, 3_600);
        assert_eq!(signer.client_token(&subject(), "", 1_299), (first.clone(), 3_301));
        assert_ne!(signer.client_token(&subject(), "partner", 1_000).0, first);
        assert_ne!(signer.client_token(&other, "", 1_000).0, first);
        let (second, valid) = signer.client_token(&subject(), "", 1_300);
        assert!(second != first && valid == 3_600);
        signer.expire_all();
        assert_ne!(signer.client_token(&subject(), "", 1_300).0, second);
        let short = Signer::new(b"key", Duration::from_secs(3));
        assert_ne!(short.client_token(&subject(), "", 5), short.client_token(&subject(), "", 5));
    }

    #[test]
    fn an_id_token_is_not_an_access_token() {
        let token = signer().id_token(&subject(), 1_000);
        assert_eq!(signer().verify(&token, 1_000), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_changed_anywhere_is_refused() {
        let token = signer().access_token(&subject(), 1_000);
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // the last character of base64 has unused bits; strict decoding refuses others than zero
            assert_eq!(signer().verify(&changed, 1_000), Err(TokenError::Invalid), "at {index}");
        }
        assert_eq!(signer().verify("", 1_000), Err(TokenError::Invalid));
        assert_eq!(signer().verify("a.b", 1_000), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_signed_with_another_key_is_refused() {
        let other = Signer::new(b"another key", Duration::from_secs(3600));
        let token = other.access_token(&subject(), 1_000);
        assert_eq!(signer().verify(&token, 1_000), Err(TokenError::Invalid));
    }
}
