//! Happy Eyeballs (RFC 8305): when to try which address of a host.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The time between the starts of two attempts, unless the earlier one fails sooner: the Connection Attempt
/// Delay recommended by RFC 8305, 8.
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How many round trips TLS may take on a connection until the next attempt starts: two for TLS 1.2, and some time for
/// both ends.
const HANDSHAKE_ROUND_TRIPS: u32 = 3;
/// The longest time for TLS until the next attempt starts, on a slow network.
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(2);
/// How long the resolver may take until the addresses of its last answer are tried: about twice the time of a
/// name that must be looked up over a mobile network.
pub(super) const RESOLVER_PATIENCE: Duration = Duration::from_millis(500);
/// The most addresses tried for one connection. Hosts have a few; each further one costs [`ATTEMPT_DELAY`].
pub(super) const MAX_ADDRESSES: usize = 8;

/// What is known about a host before the resolver has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KnownAddresses {
    /// The address of the last connection that worked.
    pub(super) good: Option<IpAddr>,
    /// The resolver's last answer.
    pub(super) answer: Vec<IpAddr>,
}

/// The attempts for one connection. The caller starts an attempt whenever [`HappyEyeballs::poll_attempt`] names an
/// address, and takes the first connection that succeeds, TLS included: a network that drops long packets accepts
/// connections over which no TLS handshake succeeds.
#[derive(Debug)]
pub(super) struct HappyEyeballs {
    /// The addresses to try, in this order.
    waiting: VecDeque<IpAddr>,
    /// The addresses that have been tried.
    tried: Vec<IpAddr>,
    /// How many attempts have neither failed nor succeeded.
    running: usize,
    /// When the next attempt may start beside the running ones.
    next_at: Instant,
    /// The resolver's last answer, and when to use it.
    fallback: Option<(Instant, Vec<IpAddr>)>,
    is_resolving: bool,
}

impl HappyEyeballs {
    /// Begins with the last good address, if there is one, while the resolver is being asked.
    pub(super) fn new(now: Instant, known: KnownAddresses) -> Self {
        let KnownAddresses { good, answer } = known;
        let fallback = (!answer.is_empty()).then(|| (now + RESOLVER_PATIENCE, answer));
        Self {
            waiting: good.into_iter().collect(),
            tried: Vec::new(),
            running: 0,
            next_at: now,
            fallback,
            is_resolving: true,
        }
    }

    /// The resolver has answered.
    pub(super) fn handle_answer(&mut self, addresses: &[IpAddr]) {
        self.is_resolving = false;
        self.fallback = None;
        self.add(addresses);
    }

    /// The resolver has failed: the addresses of its last answer are used.
    pub(super) fn handle_resolver_failure(&mut self) {
        self.is_resolving = false;
        if let Some((_, addresses)) = self.fallback.take() {
            self.add(&addresses);
        }
    }

    /// An attempt has a TCP connection after this time, about a round trip. TLS, or a tunnel, gets a moment before the
    /// next attempt starts.
    pub(super) fn handle_accepted(&mut self, now: Instant, took: Duration) {
        let patience = (took * HANDSHAKE_ROUND_TRIPS).clamp(ATTEMPT_DELAY, LONGEST_HANDSHAKE);
        self.next_at = self.next_at.max(now + patience);
    }

    /// An attempt has failed: the next one need not wait.
    pub(super) fn handle_failure(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.next_at = now;
    }

    /// The address of an attempt that is due.
    pub(super) fn poll_attempt(&mut self, now: Instant) -> Option<IpAddr> {
        if let Some((_, addresses)) = self.fallback.take_if(|(at, _)| *at <= now) {
            self.add(&addresses);
        }
        if now < self.next_at && self.running > 0 {
            return None;
        }
        let address = self.waiting.pop_front()?;
        self.tried.push(address);
        self.running += 1;
        self.next_at = now + ATTEMPT_DELAY;
        Some(address)
    }

    /// When [`HappyEyeballs::poll_attempt`] is to be called again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = (!self.waiting.is_empty()).then_some(self.next_at);
        let fallback = self.fallback.as_ref().map(|(at, _)| *at);
        next.into_iter().chain(fallback).min()
    }

    /// Whether the resolver's answer is still to come.
    pub(super) fn is_resolving(&self) -> bool {
        self.is_resolving
    }

    /// Whether every attempt has failed, and no further address can come.
    pub(super) fn has_failed(&self) -> bool {
        self.running == 0 && self.waiting.is_empty() && !self.is_resolving
    }

    /// Adds the addresses that are new. The families take turns (RFC 8305, 4), beginning with another one than
    /// that of the attempt before; within a family, the resolver's order (RFC 6724) stays.
    fn add(&mut self, addresses: &[IpAddr]) {
        let is_new = |address: &&IpAddr| !self.tried.contains(address) && !self.waiting.contains(address);
        let new: Vec<IpAddr> = addresses.iter().filter(is_new).copied().collect();
        let Some(resolvers_choice) = new.first().map(IpAddr::is_ipv6) else { return };
        let before = self.waiting.back().or(self.tried.last()).map(IpAddr::is_ipv6);
        let begins_with_ipv6 = before.map_or(resolvers_choice, |was_ipv6| !was_ipv6);
        let (first, second): (Vec<IpAddr>, Vec<IpAddr>) =
            new.into_iter().partition(|address| address.is_ipv6() == begins_with_ipv6);
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        let mut ordered = Vec::new();
        loop {
            let pair = [first.next(), second.next()];
            if pair == [None, None] {
                break;
            }
            ordered.extend(pair.into_iter().flatten());
        }
        for address in ordered {
            if self.tried.len() + self.waiting.len() < MAX_ADDRESSES && !self.waiting.contains(&address) {
                self.waiting.push_back(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    const V6: [&str; 3] = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Attempts in virtual time.
    struct Rig {
        start: Instant,
        eyeballs: HappyEyeballs,
    }

    impl Rig {
        fn new(good: Option<&str>, answer: &[&str]) -> Self {
            let good = good.map(|good| good.parse().unwrap());
            let known = KnownAddresses { good, answer: addresses(answer) };
            let start = Instant::now();
            Self { start, eyeballs: HappyEyeballs::new(start, known) }
        }

        /// The attempts that start at this time.
        fn at(&mut self, milliseconds: u64) -> Vec<String> {
            let now = self.start + ms(milliseconds);
            std::iter::from_fn(|| self.eyeballs.poll_attempt(now))
                .map(|address| address.to_string())
                .collect()
        }

        fn fail(&mut self, milliseconds: u64) {
            self.eyeballs.handle_failure(self.start + ms(milliseconds));
        }

        /// All attempts with their times, if none of them ends.
        fn all(&mut self) -> Vec<(u128, String)> {
            let (mut found, mut now) = (Vec::new(), self.start);
            loop {
                while let Some(address) = self.eyeballs.poll_attempt(now) {
                    found.push(((now - self.start).as_millis(), address.to_string()));
                }
                match self.eyeballs.poll_timeout() {
                    Some(at) => now = at,
                    None => return found,
                }
            }
        }
    }

    fn timed(expected: &[(u128, &str)]) -> Vec<(u128, String)> {
        expected.iter().map(|(at, address)| (*at, (*address).to_owned())).collect()
    }

    #[test]
    fn families_take_turns_and_an_attempt_starts_every_250_ms() {
        let mut rig = Rig::new(None, &[]);
        assert_eq!(rig.at(0), [""; 0]);
        rig.eyeballs.handle_answer(&addresses(&[V6[0], V6[1], V4[0], V6[2], V4[1]]));
        let expected = [(0, V6[0]), (250, V4[0]), (500, V6[1]), (750, V4[1]), (1000, V6[2])];
        assert_eq!(rig.all(), timed(&expected));
    }

    #[test]
    fn the_resolvers_first_family_is_tried_first() {
        let mut rig = Rig::new(None, &[]);
        rig.eyeballs.handle_answer(&addresses(&[V4[0], V4[1], V6[0]]));
        assert_eq!(rig.all(), timed(&[(0, V4[0]), (250, V6[0]), (500, V4[1])]));
    }

    #[test]
    fn a_failed_attempt_is_followed_by_the_next_one_immediately() {
        let mut rig = Rig::new(None, &[]);
        rig.eyeballs.handle_answer(&addresses(&[V6[0], V4[0], V4[1]]));
        assert_eq!(rig.at(0), [V6[0]]);
        rig.fail(10);
        assert_eq!(rig.at(10), [V4[0]]);
        assert_eq!(rig.at(259), [""; 0]);
        assert_eq!(rig.at(260), [V4[1]]);
        rig.fail(300);
        assert!(!rig.eyeballs.has_failed(), "one attempt still runs");
        rig.fail(400);
        assert!(rig.eyeballs.has_failed());
    }

    #[test]
    fn the_last_good_address_is_tried_before_the_resolver_has_answered() {
        let mut rig = Rig::new(Some(V4[1]), &[V4[0], V4[1]]);
        assert_eq!(rig.at(0), [V4[1]]);
        rig.eyeballs.handle_answer(&addresses(&[V4[0], V4[1], V6[0]]));
        assert_eq!(
            rig.all(),
            timed(&[(250, V6[0]), (500, V4[0])]),
            "each address once, the other family next"
        );
    }

    #[test]
    fn a_good_address_whose_family_broke_costs_one_delay() {
        let mut rig = Rig::new(Some(V6[0]), &[]);
        assert_eq!(rig.at(0), [V6[0]]);
        rig.eyeballs.handle_answer(&addresses(&[V6[0], V6[1], V6[2], V4[0]]));
        assert_eq!(rig.at(250), [V4[0]]);
    }

    #[test]
    fn the_last_answer_is_used_when_the_resolver_fails() {
        let mut rig = Rig::new(None, &[V6[0], V4[0]]);
        assert_eq!(rig.at(20), [""; 0]);
        rig.eyeballs.handle_resolver_failure();
        assert_eq!(rig.at(20), [V6[0]]);
        rig.fail(30);
        assert_eq!(rig.at(30), [V4[0]]);
        rig.fail(40);
        assert!(rig.eyeballs.has_failed());
    }

    #[test]
    fn the_last_answer_is_used_when_the_resolver_is_slow() {
        let mut rig = Rig::new(Some(V4[0]), &[V4[0], V6[0]]);
        assert_eq!(rig.all(), timed(&[(0, V4[0]), (500, V6[0])]));
        rig.fail(600);
        rig.fail(600);
        assert!(!rig.eyeballs.has_failed(), "the answer may have other addresses");
        rig.eyeballs.handle_answer(&addresses(&[V4[2]]));
        assert_eq!(rig.at(9000), [V4[2]]);
    }

    #[test]
    fn a_resolver_that_fails_for_an_unknown_host_ends_the_attempts() {
        let mut rig = Rig::new(None, &[]);
        assert_eq!((rig.all(), rig.eyeballs.has_failed()), (Vec::new(), false));
        rig.eyeballs.handle_resolver_failure();
        assert!(rig.eyeballs.has_failed());
    }

    #[test]
    fn an_accepted_connection_gets_three_round_trips_for_tls_before_the_next_attempt() {
        for (round_trip, next) in [(0, 250), (40, 290), (100, 400), (200, 800), (900, 2900)] {
            let mut rig = Rig::new(Some(V6[0]), &[]);
            assert_eq!(rig.at(0), [V6[0]]);
            rig.eyeballs.handle_accepted(rig.start + ms(round_trip), ms(round_trip));
            rig.eyeballs.handle_answer(&addresses(&[V6[0], V4[0]]));
            assert_eq!(rig.at(next - 1), [""; 0], "{round_trip} ms");
            assert_eq!(rig.at(next), [V4[0]], "{round_trip} ms");
        }
        // a handshake that fails is followed by the next attempt immediately
        let mut rig = Rig::new(Some(V6[0]), &[]);
        assert_eq!(rig.at(0), [V6[0]]);
        rig.eyeballs.handle_accepted(rig.start + ms(100), ms(100));
        rig.eyeballs.handle_answer(&addresses(&[V4[0]]));
        rig.fail(150);
        assert_eq!(rig.at(150), [V4[0]]);
    }

    #[test]
    fn a_long_answer_is_cut_to_eight_addresses() {
        let many: Vec<String> = (0..100).map(|number| format!("192.0.2.{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let mut rig = Rig::new(Some(V6[0]), &[]);
        rig.eyeballs.handle_answer(&addresses(&many));
        assert_eq!(rig.all().len(), MAX_ADDRESSES);
    }
}
