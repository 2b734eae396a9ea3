//! Verifies the cloud's certificate on a device whose clock may be wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::pin::PinVerifier;

/// The date of this program's sources in seconds since 1970, if the build sets it (`SOURCE_DATE_EPOCH`).
const PROGRAM_DATE: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => decimal(text.as_bytes()),
    None => 0,
};

/// The usual verifier with one addition: if a certificate is not valid yet by the device's clock, it is
/// verified again at the latest time that is known to have passed. A device without a battery for its clock
/// starts in 1970, or at the time when it was switched off; with this addition it comes online before the
/// clock has been set. A certificate that has expired by the device's clock stays expired: a clock that is
/// ahead must be set.
#[derive(Debug)]
pub(super) struct ClockTolerantVerifier {
    inner: PinVerifier,
    /// A time that has certainly passed, in seconds since 1970.
    known_time: AtomicU64,
    /// A warning about the clock has been logged.
    has_warned: AtomicBool,
}

impl ClockTolerantVerifier {
    /// A verifier for a time later than `known_time` since 1970 and later than this program's date.
    pub(super) fn new(inner: PinVerifier, known_time: Duration) -> Self {
        let known_time = [known_time.as_secs(), PROGRAM_DATE].into_iter().fold(0, u64::max);
        let known_time = AtomicU64::new(known_time);
        Self { inner, known_time, has_warned: AtomicBool::new(false) }
    }

    fn warn_about_clock(&self, what: &str, clock: UnixTime) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        // the format has no years beyond 9999
        let seconds = clock.as_secs().min(253_402_300_799);
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        tracing::warn!(
            "the cloud's certificate {what} by this device's clock, which shows {date}; set the clock if it is wrong"
        );
    }
}

impl ServerCertVerifier for ClockTolerantVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time| self.inner.verify(end_entity, intermediates, server_name, ocsp_response, time);
        let error = match at(now) {
            Ok(verified) => {
                self.known_time.fetch_max(now.as_secs(), Ordering::Relaxed);
                self.has_warned.store(false, Ordering::Relaxed);
                return Ok(verified);
            }
            Err(error) => error,
        };
        match &error {
            Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => {
                let known = self.known_time.load(Ordering::Relaxed);
                if known > now.as_secs()
                    && let Ok(verified) = at(UnixTime::since_unix_epoch(Duration::from_secs(known)))
                {
                    tracing::debug!(
                        "the clock is behind; the certificate is valid at a time that has certainly passed"
                    );
                    return Ok(verified);
                }
                self.warn_about_clock("is not valid yet", now);
            }
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => self.warn_about_clock("has expired", now),
            _ => {}
        }
        Err(error)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.usual().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.usual().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.usual().supported_verify_schemes()
    }
}

/// Parses a decimal number; 0 if the text is not one.
const fn decimal(text: &[u8]) -> u64 {
    let mut rest = text;
    let mut number: u64 = 0;
    while let [digit, behind @ ..] = rest {
        if !digit.is_ascii_digit() {
            return 0;
        }
        number = number.saturating_mul(10).saturating_add((*digit - b'0') as u64);
        rest = behind;
    }
    number
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;

    use super::*;

    const YEAR: u64 = 365 * 24 * 3600;

    #[test]
    fn with_a_clock_in_1970_a_time_known_to_have_passed_is_used() {
        let rig = CertificateRig::new(50 * YEAR, 60 * YEAR);
        let verifier = rig.verifier(55 * YEAR);
        assert_eq!(rig.check(&verifier, 0), Ok(()));
        assert_eq!(rig.check(&verifier, 52 * YEAR), Ok(()));
    }

    #[test]
    fn a_known_time_before_the_certificate_does_not_help() {
        let rig = CertificateRig::new(50 * YEAR, 60 * YEAR);
        let verifier = rig.verifier(49 * YEAR);
        assert!(matches!(
            rig.check(&verifier, 0),
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }))
        ));
        assert_eq!(rig.check(&verifier, 52 * YEAR), Ok(()), "the clock is set");
        assert_eq!(rig.check(&verifier, 0), Ok(()), "the verifier remembers the time");
    }

    #[test]
    fn an_expired_certificate_stays_expired_at_any_known_time() {
        let rig = CertificateRig::new(50 * YEAR, 60 * YEAR);
        let expired = |result| {
            matches!(result, Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })))
        };
        assert!(expired(rig.check(&rig.verifier(55 * YEAR), 61 * YEAR)), "a clock that is ahead");
        let verifier = rig.verifier(61 * YEAR);
        assert!(rig.check(&verifier, 0).is_err(), "a certificate that expired before the known time");
        assert_eq!(rig.check(&verifier, 55 * YEAR), Ok(()), "the clock itself has precedence");
    }

    #[test]
    fn a_certificate_of_another_ca_is_refused_at_any_time() {
        let rig = CertificateRig::new(50 * YEAR, 60 * YEAR);
        let other = CertificateRig::new(50 * YEAR, 60 * YEAR);
        for now in [0, 55 * YEAR] {
            assert!(rig.check(&other.verifier(55 * YEAR), now).is_err());
        }
    }

    #[test]
    fn the_programs_date_is_a_number_or_nothing() {
        assert_eq!(decimal(b"1764000000"), 1_764_000_000);
        assert_eq!((decimal(b""), decimal(b"yesterday"), decimal(b"12x")), (0, 0, 0));
    }

    /// A certificate and its CA.
    struct CertificateRig {
        roots: Arc<RootCertStore>,
        certificate: CertificateDer<'static>,
    }

    impl CertificateRig {
        fn new(from: u64, until: u64) -> Self {
            let time = |seconds| (UNIX_EPOCH + Duration::from_secs(seconds)).into();
            let ca_key = rcgen::KeyPair::generate().unwrap();
            let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
            ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let mut roots = RootCertStore::empty();
            roots.add(ca.self_signed(&ca_key).unwrap().der().clone()).unwrap();
            let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
            let mut leaf = rcgen::CertificateParams::new(vec!["cloud.example".to_owned()]).unwrap();
            (leaf.not_before, leaf.not_after) = (time(from), time(until));
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = leaf.signed_by(&key, &issuer).unwrap().der().clone();
            Self { roots: Arc::new(roots), certificate }
        }

        fn verifier(&self, known_time: u64) -> ClockTolerantVerifier {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let inner = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider.clone());
            let inner = PinVerifier::new(inner.build().unwrap(), self.roots.clone(), provider, Vec::new());
            ClockTolerantVerifier::new(inner, Duration::from_secs(known_time))
        }

        fn check(&self, verifier: &ClockTolerantVerifier, now: u64) -> Result<(), Error> {
            let name = ServerName::try_from("cloud.example").unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
            verifier.verify_server_cert(&self.certificate, &[], &name, &[], now).map(drop)
        }
    }
}
