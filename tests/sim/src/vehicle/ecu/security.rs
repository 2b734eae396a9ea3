//! Security access (ISO 14229-1, service 0x27) with a key algorithm that provides no security.

use std::time::{Duration, Instant};

use connector_operator::flash::toy_key;

use super::nrc::Nrc;

/// The number of wrong keys after which an ECU makes the tool wait.
const MAX_ATTEMPTS: u8 = 3;

/// A well-mixed number for generated data. It depends on its arguments alone, so that every run is the same.
pub(super) fn mix(identity: u64, count: u64) -> u64 {
    // splitmix64
    let mut z = identity.wrapping_add(count.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The security access of one ECU.
#[derive(Debug)]
pub(super) struct Security {
    identity: u64,
    seeds_given: u64,
    /// The level and the seed of the expected key.
    expected: Option<(u8, [u8; 4])>,
    unlocked: Option<u8>,
    wrong_keys: u8,
    delay: Duration,
    delayed_until: Option<Instant>,
}

impl Security {
    pub(super) fn new(identity: u64, delay: Duration) -> Self {
        let (seeds_given, expected, unlocked, wrong_keys, delayed_until) = (0, None, None, 0, None);
        Self { identity, seeds_given, expected, unlocked, wrong_keys, delay, delayed_until }
    }

    /// The unlocked level.
    pub(super) fn unlocked(&self) -> Option<u8> {
        self.unlocked
    }

    /// Locks again, as every change of session does. The count of wrong keys is kept.
    pub(super) fn lock(&mut self) {
        self.unlocked = None;
        self.expected = None;
    }

    /// `27` with its sub-function and data.
    pub(super) fn access(&mut self, now: Instant, sub_function: u8, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        match sub_function {
            0x01..=0x42 if sub_function % 2 == 1 => self.request_seed(now, sub_function),
            0x01..=0x42 => self.send_key(now, sub_function, data),
            _ => Err(Nrc::SubFunctionNotSupported),
        }
    }

    fn request_seed(&mut self, now: Instant, level: u8) -> Result<Vec<u8>, Nrc> {
        if self.unlocked == Some(level) {
            // an all-zero seed means that the level is unlocked
            return Ok(vec![0x67, level, 0, 0, 0, 0]);
        }
        match self.delayed_until {
            Some(until) if now < until => return Err(Nrc::RequiredTimeDelayNotExpired),
            Some(_) => (self.delayed_until, self.wrong_keys) = (None, 0),
            None => {}
        }
        self.seeds_given = self.seeds_given.wrapping_add(1);
        let seed = (mix(self.identity, self.seeds_given) as u32 | 1).to_be_bytes();
        self.expected = Some((level, seed));
        let mut response = vec![0x67, level];
        response.extend(seed);
        Ok(response)
    }

    fn send_key(&mut self, now: Instant, sub_function: u8, key: &[u8]) -> Result<Vec<u8>, Nrc> {
        let (level, seed) = self.expected.ok_or(Nrc::RequestSequenceError)?;
        if level.checked_add(1) != Some(sub_function) {
            return Err(Nrc::RequestSequenceError);
        }
        if key.len() != seed.len() {
            return Err(Nrc::IncorrectMessageLength);
        }
        // a seed is valid for one key, right or wrong
        self.expected = None;
        if key == toy_key(level, seed) {
            (self.unlocked, self.wrong_keys) = (Some(level), 0);
            return Ok(vec![0x67, sub_function]);
        }
        self.wrong_keys = self.wrong_keys.saturating_add(1);
        if self.wrong_keys < MAX_ATTEMPTS {
            return Err(Nrc::InvalidKey);
        }
        self.delayed_until = now.checked_add(self.delay);
        Err(Nrc::ExceededNumberOfAttempts)
    }
}
