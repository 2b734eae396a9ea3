//! Pinned public keys of the cloud.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{Error, OtherError, RootCertStore, SupportedCipherSuite};
use serde::Deserialize;

/// What a pin begins with.
const PREFIX: &str = "sha256/";
/// The most certificates of a chain that are looked at: real chains have up to four.
const MAX_CHAIN: usize = 8;

/// The SHA-256 hash of a public key with its algorithm (the SubjectPublicKeyInfo of RFC 5280, 4.1), written
/// `sha256/BASE64` (RFC 7469, 2.4).
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyPin([u8; 32]);

/// Why a text is not a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a pin of a public key; write it like sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")]
pub struct KeyPinError;

impl KeyPin {
    /// The pin of a SubjectPublicKeyInfo in DER; `None` if this build has no SHA-256.
    fn of(public_key: &[u8]) -> Option<Self> {
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { return None };
        suite.common.hash_provider.hash(public_key).as_ref().try_into().ok().map(Self)
    }
}

impl TryFrom<String> for KeyPin {
    type Error = KeyPinError;

    fn try_from(text: String) -> Result<Self, KeyPinError> {
        let hash = text.strip_prefix(PREFIX).and_then(|hash| BASE64_STANDARD.decode(hash).ok());
        hash.and_then(|hash| hash.try_into().ok()).map(Self).ok_or(KeyPinError)
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// No certificate of the chain has a pinned key.
#[derive(Debug, thiserror::Error)]
#[error("no key of its chain is pinned in cloud.public_key_pins; the keys are {}", Pins(.0))]
struct NotPinned(Vec<KeyPin>);

struct Pins<'a>(&'a [KeyPin]);

impl fmt::Display for Pins<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pin) in self.0.iter().enumerate() {
            write!(f, "{}{pin}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The usual verifier, which in addition demands a pinned key on the way from the certificate to a trusted CA.
#[derive(Debug)]
pub(super) struct PinVerifier {
    inner: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    pins: Vec<KeyPin>,
}

impl PinVerifier {
    /// A verifier with these trusted CAs; `inner` has the same.
    pub(super) fn new(
        inner: Arc<WebPkiServerVerifier>,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        pins: Vec<KeyPin>,
    ) -> Self {
        Self { inner, roots, provider, pins }
    }

    /// The usual verifier, for the signatures of the handshake.
    pub(super) fn usual(&self) -> &WebPkiServerVerifier {
        &self.inner
    }

    /// Verifies the certificate as usual, and the pins.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if !self.pins.is_empty() {
            self.check_pins(end_entity, intermediates, now)?;
        }
        Ok(verified)
    }

    /// Checks that a key is pinned, in a chain that has been verified.
    ///
    /// A server may send certificates that are not part of the chain. A key above the leaf therefore counts only if
    /// the leaf is verified with that key as the only trusted one.
    fn check_pins(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let mut seen = Vec::new();
        if self.is_pinned(&leaf.subject_public_key_info(), &mut seen) {
            return Ok(());
        }
        let mut trusted = RootCertStore::empty();
        for certificate in intermediates.iter().take(MAX_CHAIN) {
            let parsed = ParsedCertificate::try_from(certificate)?;
            if self.is_pinned(&parsed.subject_public_key_info(), &mut seen) {
                trusted.add(certificate.clone().into_owned())?;
            }
        }
        let is_pinned = |root: &&TrustAnchor<'_>| {
            KeyPin::of(&sequence(&root.subject_public_key_info)).is_some_and(|pin| self.pins.contains(&pin))
        };
        trusted.roots.extend(self.roots.roots.iter().filter(is_pinned).cloned());
        let algorithms = self.provider.signature_verification_algorithms.all;
        if !trusted.is_empty()
            && verify_server_cert_signed_by_trust_anchor(&leaf, &trusted, intermediates, now, algorithms)
                .is_ok()
        {
            return Ok(());
        }
        Err(Error::Other(OtherError(Arc::new(NotPinned(seen)))))
    }

    fn is_pinned(&self, public_key: &[u8], seen: &mut Vec<KeyPin>) -> bool {
        let pin = KeyPin::of(public_key);
        seen.extend(pin);
        pin.is_some_and(|pin| self.pins.contains(&pin))
    }
}

/// The content of a SEQUENCE in DER (ITU-T X.690, 8.9) with its header. A trust anchor keeps only the content.
fn sequence(content: &[u8]) -> Vec<u8> {
    let mut der = vec![0x30];
    let length = content.len().to_be_bytes();
    match content.len() {
        short @ 0..=0x7F => der.push(short as u8),
        _ => {
            let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | digits.len() as u8);
            der.extend(digits);
        }
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};

    use super::*;

    /// A root, an intermediate CA and a leaf.
    struct Chain {
        keys: [KeyPair; 3],
        certificates: [CertificateDer<'static>; 3],
    }

    impl Chain {
        fn new() -> Self {
            let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
            let ca = |name: &str| {
                let mut params = CertificateParams::new(Vec::new()).unwrap();
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params
            };
            let (root, middle) = (ca("root"), ca("middle"));
            let leaf = CertificateParams::new(vec!["cloud.example".to_owned()]).unwrap();
            let certificates = [
                root.self_signed(&keys[0]).unwrap().der().clone(),
                middle.signed_by(&keys[1], &Issuer::from_params(&root, &keys[0])).unwrap().der().clone(),
                leaf.signed_by(&keys[2], &Issuer::from_params(&middle, &keys[1])).unwrap().der().clone(),
            ];
            Self { keys, certificates }
        }

        fn pin(&self, index: usize) -> KeyPin {
            KeyPin::of(&self.keys[index].subject_public_key_info()).unwrap()
        }

        /// Verifies the leaf, with the intermediate and further certificates as the server sends them.
        fn check(&self, pins: Vec<KeyPin>, sent: &[&CertificateDer<'static>]) -> Result<(), Error> {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificates[0].clone()).unwrap();
            let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
            let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
            let verifier = PinVerifier::new(inner.build().unwrap(), roots, provider, pins);
            let intermediates: Vec<_> =
                std::iter::once(&self.certificates[1]).chain(sent.iter().copied()).cloned().collect();
            let name = ServerName::try_from("cloud.example").unwrap();
            verifier.verify(&self.certificates[2], &intermediates, &name, &[], UnixTime::now()).map(drop)
        }
    }

    #[test]
    fn a_pin_matches_the_key_of_leaf_intermediate_or_root() {
        let (chain, other) = (Chain::new(), Chain::new());
        for index in 0..3 {
            assert_eq!(chain.check(vec![other.pin(index), chain.pin(index)], &[]), Ok(()), "{index}");
        }
        assert_eq!(chain.check(Vec::new(), &[]), Ok(()), "without pins");
    }

    #[test]
    fn a_chain_without_a_pinned_key_is_refused_and_its_keys_are_named() {
        let (chain, other) = (Chain::new(), Chain::new());
        let error = chain.check(vec![other.pin(0), other.pin(2)], &[]).unwrap_err().to_string();
        let keys = format!("the keys are {}, {}", chain.pin(2), chain.pin(1));
        assert!(error.contains("no key of its chain is pinned in cloud.public_key_pins"), "{error}");
        assert!(error.contains(&keys), "{error}");
    }

    #[test]
    fn a_pinned_certificate_that_is_only_sent_along_does_not_count() {
        let (chain, pinned) = (Chain::new(), Chain::new());
        let sent: Vec<_> = pinned.certificates.iter().collect();
        let error = chain.check(vec![pinned.pin(0), pinned.pin(1), pinned.pin(2)], &sent).unwrap_err();
        assert!(matches!(error, Error::Other(_)), "{error}");
    }

    #[test]
    fn a_pinned_key_does_not_replace_a_trusted_ca() {
        let (chain, other) = (Chain::new(), Chain::new());
        let mixed = Chain { keys: chain.keys, certificates: chain.certificates.clone() };
        let untrusted = Chain {
            certificates: [
                other.certificates[0].clone(),
                chain.certificates[1].clone(),
                chain.certificates[2].clone(),
            ],
            keys: other.keys,
        };
        let error = untrusted.check(vec![mixed.pin(1), mixed.pin(2)], &[]).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
    }

    #[test]
    fn a_pin_is_written_as_openssl_gives_it() {
        // of an empty text, by `openssl dgst -sha256 -binary /dev/null | base64`
        let text = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin = KeyPin::try_from(text.to_owned()).unwrap();
        assert_eq!((KeyPin::of(b"").unwrap(), pin.to_string().as_str()), (pin, text));
        for wrong in
            ["", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "sha256/AAAA", "sha1/AAAA", "sha256/?"]
        {
            assert_eq!(KeyPin::try_from(wrong.to_owned()), Err(KeyPinError), "{wrong}");
        }
    }
}
