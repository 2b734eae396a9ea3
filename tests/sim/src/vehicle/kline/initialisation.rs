//! Initialisation of the communication (ISO 14230-2, 5): by a pulse (fast), or by the ECU's address at 5 baud (slow).

use std::time::{Duration, Instant};

use connector_hal::kline::{ADDRESS_BIT, ADDRESS_TIME};

use super::anomaly::Anomaly;
use super::ecu::{KlineEcu, MS};
use super::phase::{Overheard, Phase};

impl KlineEcu {
    pub(super) fn handle_level(&mut self, at: Instant, is_low: bool) {
        if let Phase::AwaitsComplement { .. } = self.phase {
            // the tester begins again
            self.phase = Phase::Asleep;
            self.received.clear();
        }
        if !is_low && let Some((since, true)) = self.levels.last().copied() {
            let low = at - since;
            if low < Duration::from_millis(100) {
                self.expect(low, 24 * MS, 26 * MS, Anomaly::PulseLow);
                self.pulse_at = Some(since);
                self.received.clear();
            }
        }
        self.levels.push((at, is_low));
    }

    fn is_deaf(&mut self) -> bool {
        let misbehaviour = self.config.misbehaviour;
        self.ignored_initialisations += 1;
        misbehaviour.is_silent || self.ignored_initialisations <= misbehaviour.deaf_to
    }

    /// Handles StartCommunication, which ends the fast initialisation.
    pub(super) fn handle_start_communication(&mut self, at: Instant) {
        let Some(pulse_at) = self.pulse_at.take().filter(|_| self.config.fast) else { return };
        let wake_up = self.received_since - pulse_at;
        if !self.expect(wake_up, 49 * MS, 51 * MS, Anomaly::WakeUp) || self.is_deaf() {
            return;
        }
        let [first, second] = self.config.key_bytes;
        match self.config.misbehaviour.refuses_with {
            Some(code) => self.answer_with_addresses(at, &[0x7F, 0x81, code]),
            None => {
                self.phase = Phase::Communicating;
                self.requests = 0;
                self.answer_with_addresses(at, &[0xC1, first, second]);
            }
        }
    }

    /// Reads the levels since the first one as an address, and answers if the address is the ECU's.
    pub(super) fn handle_address(&mut self, start: Instant) {
        let level_at = |at: Instant| {
            let before = self.levels.iter().take_while(|(since, _)| *since <= at);
            before.last().is_some_and(|(_, is_low)| *is_low)
        };
        // sample each bit in its middle
        let bit = |number: u32| level_at(start + ADDRESS_BIT * number + ADDRESS_BIT / 2);
        let address = (0..8).fold(0u8, |byte, index| byte | u8::from(!bit(index + 1)) << index);
        let is_byte = bit(0) && !bit(9);
        self.levels.clear();
        let own = self.config.misbehaviour.wakes_to.unwrap_or(self.config.address);
        let is_mine = address == own || self.config.functions.contains(&address);
        if !is_byte {
            return;
        }
        if !self.config.slow || !is_mine || self.is_deaf() {
            self.received.clear();
            self.overheard = Some(Overheard { address, bytes: Vec::new() });
            return;
        }
        if let Some(quiet_since) = self.quiet_since {
            let w5 = start.saturating_duration_since(quiet_since);
            self.expect(w5, 300 * MS, Duration::MAX, Anomaly::W5);
        }
        let [first, second] = self.config.key_bytes;
        let synchronisation = self.config.misbehaviour.synchronisation.unwrap_or(0x55);
        // W1 100 ms, W2 and W3 10 ms
        let mut at = start + ADDRESS_TIME + 90 * MS;
        let bytes = [synchronisation, first, second];
        let count = self.config.misbehaviour.stops_after.unwrap_or(bytes.len()).min(bytes.len());
        for byte in bytes.iter().take(count) {
            at = self.send(at + 10 * MS, &[*byte]);
        }
        if count < bytes.len() {
            return;
        }
        self.phase = Phase::AwaitsComplement { since: at };
        // the address to confirm
        self.received = vec![address];
    }

    pub(super) fn handle_complement(&mut self, start: Instant, at: Instant, since: Instant, byte: u8) {
        let address = self.received.first().copied().unwrap_or(self.config.address);
        self.received.clear();
        self.phase = Phase::Asleep;
        if byte != !self.config.key_bytes[1] {
            return self.anomalies.push(Anomaly::Complement(byte));
        }
        if !self.expect(start.saturating_duration_since(since), 25 * MS, 50 * MS, Anomaly::W4) {
            return;
        }
        if self.config.misbehaviour.stops_after == Some(3) {
            return;
        }
        let confirmed = self.config.misbehaviour.confirms_with.unwrap_or(!address);
        self.send(at + 30 * MS, &[confirmed]);
        self.phase = Phase::Communicating;
        self.requests = 0;
    }

    /// The time at which the levels since the first low one are a complete address.
    pub(super) fn address_at(&self) -> Option<Instant> {
        self.levels.first().map(|(start, _)| *start + ADDRESS_TIME)
    }
}
