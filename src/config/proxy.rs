//! The HTTP proxy between connector and cloud.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::secret_file::{self, SecretFileError};
use super::secrets;

/// The longest credentials accepted, in bytes. A longer file is another file.
const MAX_CREDENTIALS: usize = 512;

/// The address of an HTTP proxy: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProxyUrl(Url);

/// Why the address of a proxy cannot be used. Never quotes the address, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// The text is not the address of an HTTP proxy.
    #[error("not the address of an HTTP proxy; write it like http://proxy.example.com:3128")]
    Syntax,
    /// The address has a user name or password.
    #[error("an address must not contain a user name or password; put them into proxy_credentials_file")]
    Credentials,
}

/// User name and password for a proxy.
#[derive(Clone)]
pub struct ProxyCredentials {
    /// The value of the header `Proxy-Authorization` (RFC 7617).
    header: SecretString,
}

/// Why the credentials for a proxy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyCredentialsError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file has another content.
    #[error("the credentials of the proxy in {} are not user:password; put one line with both there", .0.display())]
    Malformed(PathBuf),
}

/// The HTTP proxy through which the cloud is reached.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// The address.
    pub url: ProxyUrl,
    /// User name and password, if the proxy requires them.
    pub credentials: Option<ProxyCredentials>,
}

impl ProxyUrl {
    /// The URL.
    pub(crate) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl TryFrom<String> for ProxyUrl {
    type Error = ProxyUrlError;

    fn try_from(text: String) -> Result<Self, ProxyUrlError> {
        let url = Url::parse(&text).map_err(|_| ProxyUrlError::Syntax)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ProxyUrlError::Credentials);
        }
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !url.has_host() || !is_bare {
            return Err(ProxyUrlError::Syntax);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl ProxyCredentials {
    /// The credentials in a text `user:password`; `None` if it has another form. A password may contain colons
    /// and blanks, but no control characters.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_end_matches(['\r', '\n']);
        let (user, password) = text.split_once(':')?;
        if user.is_empty() || text.len() >= MAX_CREDENTIALS || text.contains(char::is_control) {
            return None;
        }
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(text));
        secrets::remember_password(password);
        secrets::remember_password(&encoded);
        Some(Self { header: format!("Basic {}", *encoded).into() })
    }

    /// Reads the credentials from a file that only its owner can read.
    pub(super) fn from_file(path: &Path) -> Result<Self, ProxyCredentialsError> {
        let forbidden = secret_file::forbidden(path);
        let bytes = secret_file::read(path, "credentials of the proxy", forbidden, MAX_CREDENTIALS)?;
        let credentials = std::str::from_utf8(&bytes).ok().and_then(Self::new);
        credentials.ok_or_else(|| ProxyCredentialsError::Malformed(path.to_owned()))
    }

    /// The value of the header `Proxy-Authorization`; for the proxy only.
    pub(crate) fn expose_header(&self) -> &str {
        self.header.expose_secret()
    }
}

impl fmt::Debug for ProxyCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyCredentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn url(text: &str) -> Result<ProxyUrl, ProxyUrlError> {
        ProxyUrl::try_from(text.to_owned())
    }

    #[test]
    fn a_proxy_is_a_plain_http_address_without_password() {
        for (text, shown) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://10.0.0.1", "http://10.0.0.1"),
        ] {
            assert_eq!(url(text).unwrap().to_string(), shown);
        }
        for text in
            ["proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://proxy/pac", "http://p?a", ""]
        {
            assert_eq!(url(text), Err(ProxyUrlError::Syntax), "{text}");
        }
        assert_eq!(url("http://me:secret@proxy:3128"), Err(ProxyUrlError::Credentials));
    }

    #[test]
    fn credentials_of_a_proxy_come_from_a_file_that_others_cannot_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy");
        fs::write(&path, "me:a pass:word\n").unwrap();
        for mode in [0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = ProxyCredentials::from_file(&path).unwrap_err();
            assert!(
                matches!(error, ProxyCredentialsError::File(SecretFileError::Exposed { mode: found, .. }) if found == mode),
                "{error}"
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let credentials = ProxyCredentials::from_file(&path).unwrap();
        assert_eq!(credentials.expose_header(), "Basic bWU6YSBwYXNzOndvcmQ=");
        assert!(!format!("{credentials:?}").contains("bWU6"));
        let logged = secrets::redact("proxy said: a pass:word, bWU6YSBwYXNzOndvcmQ=");
        assert_eq!(logged, "proxy said: [redacted], [redacted]");
        for text in ["", "nocolon", ":passw0rd", "a:b\nc:d", &format!("a:{}", "x".repeat(600))] {
            fs::write(&path, text).unwrap();
            let error = ProxyCredentials::from_file(&path).unwrap_err();
            assert!(matches!(error, ProxyCredentialsError::Malformed(_)), "{text:?}: {error}");
            assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
        }
    }
}
