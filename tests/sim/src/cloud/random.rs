//! Secrets: random text, hashes, and comparison in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};

/// Fills `bytes` with random numbers of the operating system.
///
/// A login service cannot run without random numbers, so a failure ends the process.
pub(crate) fn fill(bytes: &mut [u8]) {
    if SystemRandom::new().fill(bytes).is_err() {
        tracing::error!("the operating system provides no random numbers");
        std::process::abort();
    }
}

/// URL-safe text of `length` random bytes.
pub(crate) fn token(length: usize) -> String {
    let mut bytes = vec![0; length];
    fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Text of `length` characters, each chosen from `alphabet` with equal probability.
fn random_text(length: usize, alphabet: &[u8]) -> String {
    let mut text = String::with_capacity(length);
    let limit = 256 - 256 % alphabet.len().max(1);
    while text.len() < length {
        let mut byte = [0];
        fill(&mut byte);
        let number = usize::from(byte[0]);
        if let Some(character) = alphabet.get(number % alphabet.len().max(1)).filter(|_| number < limit) {
            text.push(char::from(*character));
        }
    }
    text
}

/// A voucher code: `length` letters and digits.
pub(crate) fn voucher(length: usize) -> String {
    random_text(length, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Whether two secrets are equal. The time that this takes does not depend on where they differ.
pub(crate) fn same(left: &str, right: &str) -> bool {
    let mut key = [0; 32];
    fill(&mut key);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, left.as_bytes(), hmac::sign(&key, right.as_bytes()).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_text_has_the_length_and_alphabet_that_were_asked_for() {
        let code = voucher(8);
        assert_eq!(code.len(), 8);
        assert!(code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));
        assert_ne!(token(32), token(32));
    }

    #[test]
    fn only_equal_secrets_are_the_same() {
        assert!(same("1234", "1234"));
        assert!(!same("1234", "1235"));
        assert!(!same("1234", "12345"));
        assert!(!same("", "1"));
    }
}
