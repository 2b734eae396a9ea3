//! The sandbox's certificate authority, and the server certificate that it signs.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use time::{Duration, OffsetDateTime};

/// The authority's certificate, for clients to trust.
const CA_FILE: &str = "ca.pem";
/// The authority's key.
const CA_KEY_FILE: &str = "ca.key.pem";

/// The reasons why the server has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file in the state directory cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        #[source]
        source: std::io::Error,
    },
    /// A key or a certificate cannot be created or parsed.
    #[error("cannot create a certificate")]
    Make(#[from] rcgen::Error),
    /// TLS rejects the certificate.
    #[error("cannot serve TLS with the certificate")]
    Tls(#[from] rustls::Error),
    /// The clients' certificates cannot be verified.
    #[error("cannot verify the clients' certificates")]
    Clients(#[from] VerifierBuilderError),
}

/// The TLS configuration of the server, and the file of its authority.
pub(crate) struct ServerTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    pub(crate) ca_file: PathBuf,
}

/// Loads or creates the authority in `directory`, and signs a new server certificate for `names`.
///
/// Only the authority is stored: clients trust it, and the host name may change between starts.
///
/// With `client_ca`, clients need a certificate of one of the CAs in this file.
pub(crate) fn server_tls(
    directory: &Path,
    names: &[String],
    client_ca: Option<&Path>,
) -> Result<ServerTls, CertificateError> {
    let ca_file = directory.join(CA_FILE);
    let key_file = directory.join(CA_KEY_FILE);
    let issuer = if ca_file.exists() && key_file.exists() {
        let key = std::fs::read_to_string(&key_file)
            .map_err(|source| CertificateError::File { path: key_file.clone(), source })?;
        Issuer::new(authority_params()?, KeyPair::from_pem(&key)?)
    } else {
        let key = KeyPair::generate()?;
        let params = authority_params()?;
        let certificate = params.self_signed(&key)?;
        write_new(&key_file, &key.serialize_pem(), 0o600)?;
        write_new(&ca_file, &certificate.pem(), 0o644)?;
        Issuer::new(params, key)
    };

    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "connector-sim sandbox cloud");
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(397);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(path) => {
            let roots = Arc::new(client_roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(ServerTls { config: Arc::new(config), ca_file })
}

/// The CAs of the clients.
fn client_roots(path: &Path) -> Result<RootCertStore, CertificateError> {
    let file = |source| CertificateError::File { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&std::fs::read(path).map_err(file)?) {
        let invalid = |error| file(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
        roots.add(certificate.map_err(invalid)?)?;
    }
    Ok(roots)
}

/// Equal for every start: together with the stored key they make the issuer that signed before.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "connector-sim sandbox CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
    Ok(params)
}

/// The names in the certificate: this machine's own, and the host that the server listens on.
pub(crate) fn names(listen_host: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let unspecified = listen_host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    if !unspecified && !listen_host.is_empty() && !names.iter().any(|name| name == listen_host) {
        names.push(listen_host.to_owned());
    }
    names
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_authority_stays_the_same_over_restarts_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = server_tls(directory.path(), &names("127.0.0.1"), None).unwrap();
        let pem = std::fs::read_to_string(&first.ca_file).unwrap();
        let second = server_tls(directory.path(), &names("sandbox.example"), None).unwrap();
        assert_eq!(std::fs::read_to_string(&second.ca_file).unwrap(), pem);
        let mode = std::fs::metadata(directory.path().join(CA_KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_unspecified_address_is_not_a_certificate_name() {
        assert_eq!(names("0.0.0.0").len(), 3);
        assert_eq!(names("127.0.0.1").len(), 3);
        assert_eq!(names("10.1.2.3").len(), 4);
    }
}
