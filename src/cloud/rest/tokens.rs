//! The tokens in the answer to a login or a refresh.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::error::RestError;

/// The lifetime of a token whose answer states none: one hour, the lifetime of the vendor's access tokens.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// The answer to a login or a refresh. `Debug` omits the secrets.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The token for the `Authorization` header.
    pub access: SecretString,
    /// The token for the next refresh.
    pub refresh: Option<SecretString>,
    /// The token that describes the user. The agent has no use for it, but keeps it out of the log.
    pub id: Option<SecretString>,
    /// The lifetime of the access token, from when it was issued.
    pub lifetime: Duration,
}

/// An access token, with a number that distinguishes a refused token from the token that replaced it.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// 1 for the first token, 2 for the next, and so on.
    pub(crate) generation: u64,
    pub(crate) secret: Arc<SecretString>,
}

impl AccessToken {
    /// The value of the `Authorization` header, marked as sensitive; `None` if the token has characters that
    /// a header must not contain.
    pub(crate) fn header(&self) -> Option<http::header::HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.secret.expose_secret()));
        let mut value = http::header::HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    #[serde(default)]
    refresh_token: Option<SecretString>,
    #[serde(default)]
    id_token: Option<SecretString>,
    #[serde(default)]
    expires_in: Option<Value>,
}

#[derive(Deserialize)]
struct JwtClaims {
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

impl Tokens {
    /// Reads the tokens from the answer to a login or a refresh.
    ///
    /// The lifetime is a difference of times in the answer, because the device's clock may be wrong: the
    /// shorter of `expires_in` and the token's `exp` − `iat`, or one hour if the answer has neither.
    ///
    /// # Errors
    ///
    /// The answer does not have the expected form, or its access token cannot be sent in a header: it is empty,
    /// or has other characters than printable ASCII.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, RestError> {
        let answer: TokenAnswer =
            serde_json::from_slice(json).map_err(|error| RestError::malformed(&error))?;
        match answer.access_token.expose_secret() {
            "" => return Err(RestError::NoToken),
            token if !token.bytes().all(|byte| byte.is_ascii_graphic()) => return Err(RestError::Token),
            _ => {}
        }
        let stated =
            [answer.expires_in.as_ref().and_then(seconds), jwt_lifetime(answer.access_token.expose_secret())];
        Ok(Self {
            lifetime: stated.into_iter().flatten().min().unwrap_or(DEFAULT_LIFETIME),
            access: answer.access_token,
            id: answer.id_token,
            refresh: answer.refresh_token.filter(|token| !token.expose_secret().is_empty()),
        })
    }
}

/// Seconds as a number, `3600` (RFC 6749, 5.1), or as text, `"3600"`, which some clouds send. Any other value
/// counts as missing.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    Duration::try_from_secs_f64(seconds?).ok()
}

/// The lifetime that a JWT (RFC 7519) states. The signature is not verified: only the cloud has to trust the
/// token.
fn jwt_lifetime(token: &str) -> Option<Duration> {
    let payload = token.split('.').nth(1)?;
    let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
    let JwtClaims { exp, iat } = serde_json::from_slice(&json).ok()?;
    Duration::try_from_secs_f64(exp? - iat?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_of_a_token_does_not_depend_on_the_date() {
        let token = jwt(r#"{"iat":86400,"exp":87300,"sub":"x"}"#);
        let seconds = |json: String| Tokens::from_json(json.as_bytes()).unwrap().lifetime.as_secs();
        assert_eq!(seconds(format!(r#"{{"access_token":"{token}"}}"#)), 900);
        assert_eq!(seconds(format!(r#"{{"access_token":"{token}","expires_in":300}}"#)), 300);
        assert_eq!(seconds(format!(r#"{{"access_token":"{token}","expires_in":3000}}"#)), 900);
        assert_eq!(seconds(r#"{"access_token":"opaque","expires_in":77}"#.to_owned()), 77);
        assert_eq!(seconds(r#"{"access_token":"opaque"}"#.to_owned()), 3600);
        for (stated, lifetime) in
            [("77.0", 77), ("\"77\"", 77), ("null", 3600), ("-1", 3600), ("\"soon\"", 3600), ("[]", 3600)]
        {
            let answer = format!(r#"{{"access_token":"opaque","expires_in":{stated}}}"#);
            assert_eq!(seconds(answer), lifetime, "{stated}");
        }
    }

    #[test]
    fn a_token_that_is_not_a_valid_jwt_has_the_default_lifetime() {
        for claims in ["", "{}", "[]", r#"{"exp":1}"#, r#"{"exp":1,"iat":2}"#, r#"{"exp":1e300,"iat":0}"#] {
            let json = format!(r#"{{"access_token":"{}"}}"#, jwt(claims));
            assert_eq!(Tokens::from_json(json.as_bytes()).unwrap().lifetime, DEFAULT_LIFETIME, "{claims}");
        }
        for token in [".", "..", "a.b.c", "a.====.c"] {
            let json = format!(r#"{{"access_token":"{token}"}}"#);
            assert_eq!(Tokens::from_json(json.as_bytes()).unwrap().lifetime, DEFAULT_LIFETIME, "{token}");
        }
    }

    #[test]
    fn an_answer_without_a_usable_access_token_is_an_error() {
        let error = |token: &str| {
            let answer = serde_json::json!({"access_token": token, "refresh_token": "r"}).to_string();
            Tokens::from_json(answer.as_bytes()).unwrap_err()
        };
        assert!(matches!(error(""), RestError::NoToken));
        for token in [" ", "a b", "a\n", "\u{e4}", "a\u{0}"] {
            assert!(matches!(error(token), RestError::Token), "{token:?}");
        }
        assert!(error("").is_transient() && error(" ").is_transient(), "asked for again, after a while");
    }

    proptest::proptest! {
        #[test]
        fn no_login_answer_panics_the_parser(
            json in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            claims: String,
        ) {
            let _ = Tokens::from_json(&json);
            let answer = serde_json::json!({"access_token": jwt(&claims)}).to_string();
            let tokens = Tokens::from_json(answer.as_bytes()).unwrap();
            proptest::prop_assert!(!tokens.lifetime.is_zero() || claims.contains("exp"));
        }
    }

    #[test]
    fn a_debug_print_hides_the_tokens() {
        let json = br#"{"id_token":"iii","access_token":"aaa-secret","refresh_token":"rrr-secret"}"#;
        let tokens = Tokens::from_json(json).unwrap();
        assert_eq!(tokens.refresh.as_ref().unwrap().expose_secret(), "rrr-secret");
        let access = AccessToken { generation: 1, secret: Arc::new(tokens.access.clone()) };
        let printed = format!("{tokens:?} {access:?} {:?}", access.header());
        assert!(!printed.contains("-secret"), "{printed}");
        assert_eq!(access.header().unwrap().to_str().unwrap(), "Bearer aaa-secret");
    }

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }
}
