//! The quality of the path to the connector, from samples of its round trip. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// How many samples count.
const SAMPLES: usize = 10;
/// A longer round trip is a bad one.
const SLOW: Duration = Duration::from_millis(500);
/// A latency is reported again only when it moved by more than this.
const NOTABLE: u32 = 50;

/// Collects the samples of one client.
#[derive(Debug, Default)]
pub(super) struct Quality {
    /// `None` for a sample without an answer.
    samples: VecDeque<Option<Duration>>,
    reported: Option<u32>,
}

impl Quality {
    /// Adds a sample: the round trip, or `None` if no answer came.
    pub(super) fn add(&mut self, sample: Option<Duration>) {
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let Some(sample) = sample else { return };
        let latency = u32::try_from(sample.as_millis()).unwrap_or(u32::MAX);
        if self.reported.is_none_or(|reported| reported.abs_diff(latency) > NOTABLE) {
            self.reported = Some(latency);
        }
    }

    /// The latency to report, in milliseconds; 0 if there was no answer yet.
    pub(super) fn latency(&self) -> u32 {
        self.reported.unwrap_or_default()
    }

    /// Whether fewer than a quarter of the samples are slow or missing.
    pub(super) fn is_healthy(&self) -> bool {
        let bad = self.samples.iter().filter(|sample| sample.is_none_or(|sample| sample > SLOW)).count();
        bad * 4 < self.samples.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Option<Duration> {
        Some(Duration::from_millis(number))
    }

    #[test]
    fn a_latency_is_reported_again_when_it_moved_by_more_than_50_ms() {
        let mut quality = Quality::default();
        assert_eq!(quality.latency(), 0);
        for (sample, reported) in [(100, 100), (150, 100), (50, 100), (151, 151), (101, 151), (100, 100)] {
            quality.add(ms(sample));
            assert_eq!(quality.latency(), reported, "{sample}");
        }
        quality.add(None);
        assert_eq!(quality.latency(), 100);
    }

    #[test]
    fn a_quarter_of_slow_samples_among_the_last_ten_is_unhealthy() {
        let mut quality = Quality::default();
        (0..8).for_each(|_| quality.add(ms(500)));
        quality.add(ms(501));
        quality.add(None);
        assert!(quality.is_healthy());
        quality.add(None);
        assert!(!quality.is_healthy());
        (0..8).for_each(|_| quality.add(ms(1)));
        assert!(quality.is_healthy());
    }
}
