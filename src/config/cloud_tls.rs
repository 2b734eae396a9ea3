//! TLS with the cloud, as the configuration says.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use secrecy::zeroize::Zeroizing;

use super::configuration::Config;
use super::secret_file::{self, SecretFileError};
use crate::tls::{self, CloudTls, Identity, TlsError};

/// The longest file of a key, in bytes. An RSA key of 16,384 bits has 13,000.
const MAX_KEY: usize = 32 << 10;

/// Why TLS with the cloud cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CloudTlsError {
    /// The key of the connector's certificate cannot be used.
    #[error(transparent)]
    Key(#[from] SecretFileError),
    /// Certificates or the key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The state of a file that the configuration names: its number on the disk, its length, and when it was changed.
type FileState = Option<(u64, u64, i64, i64)>;

impl Config {
    /// The TLS configuration for the cloud; `known_time` since 1970 has certainly passed.
    pub fn cloud_tls(&self, known_time: Duration) -> Result<Arc<ClientConfig>, CloudTlsError> {
        let cloud = &self.cloud;
        let identity = match (&cloud.client_certificate_file, &cloud.client_key_file) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificate_file: certificate.clone(),
                key_file: key.clone(),
                key: client_key(key)?,
            }),
            _ => None,
        };
        let (ca_file, pins) = (cloud.ca_file.as_deref(), cloud.public_key_pins.as_slice());
        Ok(tls::cloud_config(CloudTls { ca_file, pins, identity, known_time })?)
    }

    /// The state of the files for the cloud that the configuration names: they can change while the configuration
    /// stays, as when a certificate is renewed.
    pub(crate) fn cloud_files(&self) -> Vec<FileState> {
        let cloud = &self.cloud;
        let files = [
            &cloud.ca_file,
            &cloud.client_certificate_file,
            &cloud.client_key_file,
            &cloud.proxy_credentials_file,
            &self.connector.pincode_file,
        ];
        files.into_iter().map(|file| file.as_deref().and_then(file_state)).collect()
    }
}

fn client_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    secret_file::read(path, "key of the connector's certificate", secret_file::forbidden(path), MAX_KEY)
}

fn file_state(path: &Path) -> FileState {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;
    use crate::config::{ApiUrl, WebsocketUrl};

    /// A directory with a certificate and its key, and the configuration that names them.
    struct Rig {
        directory: tempfile::TempDir,
        config: Config,
    }

    impl Rig {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut config = Config::new(
                "5f3d760d-ade2-4a19-aea4-36e097678ae3".parse().unwrap(),
                ApiUrl::try_from("https://example.com".to_owned()).unwrap(),
                WebsocketUrl::try_from("wss://example.com".to_owned()).unwrap(),
            );
            config.cloud.client_certificate_file = Some(directory.path().join("connector.pem"));
            config.cloud.client_key_file = Some(directory.path().join("connector.key"));
            let rig = Self { directory, config };
            let key = rcgen::KeyPair::generate().unwrap();
            rig.write("connector.pem", &certificate(&key), 0o644);
            rig.write("connector.key", &key.serialize_pem(), 0o600);
            rig
        }

        fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn error(&self) -> String {
            self.config.cloud_tls(Duration::ZERO).unwrap_err().to_string()
        }
    }

    fn certificate(key: &rcgen::KeyPair) -> String {
        rcgen::CertificateParams::new(vec!["connector".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    #[test]
    fn a_client_key_may_be_pkcs8_and_must_be_private() {
        let rig = Rig::new();
        assert!(rig.config.cloud_tls(Duration::ZERO).unwrap().client_auth_cert_resolver.has_certs());
        let path = rig.config.cloud.client_key_file.clone().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = rig.error();
        assert!(
            error.contains("other users can read or change the key of the connector's certificate"),
            "{error}"
        );
        assert!(error.contains("connector.key (mode 0640); chmod 600 it"), "{error}");
    }

    #[test]
    fn a_client_key_may_be_sec1() {
        let rig = Rig::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let pkcs8 = key.serialize_der();
        // the ECPrivateKey (RFC 5915) in the PKCS#8 structure: version 1, then a key of 32 bytes
        let inner = pkcs8.windows(5).rposition(|window| window == [2, 1, 1, 4, 32]).unwrap() - 2;
        let text = BASE64_STANDARD.encode(&pkcs8[inner..inner + 2 + usize::from(pkcs8[inner + 1])]);
        let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n");
        rig.write("connector.key", &pem, 0o600);
        rig.write("connector.pem", &certificate(&key), 0o644);
        rig.config.cloud_tls(Duration::ZERO).unwrap();
    }

    #[test]
    fn problems_with_certificate_key_and_pins_are_reported_by_check() {
        let rig = Rig::new();
        let path = rig.directory.path().join("connector-agent.toml");
        let with = |keys: &str| {
            let text = format!(
                "[connector]\nuuid = \"5f3d760d-ade2-4a19-aea4-36e097678ae3\"\n[cloud]\n{keys}\n\
                 api_url = \"https://a.example\"\nwebsocket_url = \"wss://a.example\"\n"
            );
            fs::write(&path, text).unwrap();
            let lines: Vec<_> = Config::check_file(&path).iter().map(ToString::to_string).collect();
            lines.into_iter().filter(|line| line.contains("cloud.")).collect::<Vec<_>>().join("\n")
        };
        let both = "client_certificate_file = \"connector.pem\"\nclient_key_file = \"connector.key\"";
        assert_eq!(with(both), "");
        let alone = with("client_key_file = \"connector.key\"");
        assert!(alone.contains(":4: cloud.client_key_file: client_certificate_file is missing"), "{alone}");
        let pin = "\"sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"";
        let single = with(&format!("public_key_pins = [{pin}]"));
        assert!(single.contains(":4: cloud.public_key_pins: warning: only one key is pinned"), "{single}");
        assert_eq!(with(&format!("public_key_pins = [{pin}, {pin}]")), "");
        let wrong = with("public_key_pins = [\"sha1/AAAA\"]");
        assert!(
            wrong.contains(":4: cloud.public_key_pins: not a pin of a public key; write it like"),
            "{wrong}"
        );
        rig.write("connector.key", "no key", 0o600);
        let no_key = with(both);
        assert!(
            no_key.contains("cloud.client_key_file: ") && no_key.contains("is not a PEM file"),
            "{no_key}"
        );
        fs::remove_file(rig.directory.path().join("connector.key")).unwrap();
        let missing = with(both);
        assert!(missing.contains("cannot read the key of the connector's certificate"), "{missing}");
    }

    #[test]
    fn the_key_of_another_certificate_is_refused_with_both_files() {
        let rig = Rig::new();
        rig.write("connector.pem", &certificate(&rcgen::KeyPair::generate().unwrap()), 0o644);
        let error = rig.error();
        assert!(error.contains("connector.key cannot be used with the certificate in"), "{error}");
        assert!(error.contains("connector.pem"), "{error}");
    }

    #[test]
    fn a_renewed_certificate_changes_the_state_of_the_files() {
        let rig = Rig::new();
        let before = rig.config.cloud_files();
        assert_eq!(rig.config.cloud_files(), before);
        let renewed = certificate(&rcgen::KeyPair::generate().unwrap());
        let path = rig.write("renewed.pem", &renewed, 0o644);
        fs::rename(path, rig.directory.path().join("connector.pem")).unwrap();
        assert_ne!(rig.config.cloud_files(), before);
    }
}
