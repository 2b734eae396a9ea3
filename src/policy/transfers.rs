//! Transfers under way. Motion refuses a new transfer, and never interrupts one that has begun.

use std::time::{Duration, Instant};

use super::intent::IntentTarget;

/// A transfer without any request for this long is over: ECUs leave the programming session long before.
const IDLE: Duration = Duration::from_secs(60);
/// The most transfers at a time. A further one is judged block by block.
const MAX_TRANSFERS: usize = 32;

const REQUEST_DOWNLOAD: u8 = 0x34;
const REQUEST_UPLOAD: u8 = 0x35;
const TRANSFER_DATA: u8 = 0x36;
const REQUEST_TRANSFER_EXIT: u8 = 0x37;
const REQUEST_FILE_TRANSFER: u8 = 0x38;

/// The transfers under way, by bus and ECU.
#[derive(Debug)]
pub(super) struct TransferGrants(Vec<(usize, IntentTarget, Instant)>);

impl TransferGrants {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(MAX_TRANSFERS))
    }

    /// Whether this request continues or ends a transfer under way.
    pub(super) fn covers(&self, now: Instant, bus: usize, target: IntentTarget, request: &[u8]) -> bool {
        matches!(request.first(), Some(&(TRANSFER_DATA | REQUEST_TRANSFER_EXIT)))
            && self.0.iter().any(|(at, of, until)| (*at, *of) == (bus, target) && *until > now)
    }

    /// Handles a request that goes out.
    pub(super) fn handle_sent(&mut self, now: Instant, bus: usize, target: IntentTarget, request: &[u8]) {
        match request.first() {
            Some(&(REQUEST_DOWNLOAD | REQUEST_UPLOAD | REQUEST_FILE_TRANSFER)) => {
                self.0.retain(|(at, of, until)| (*at, *of) != (bus, target) && *until > now);
                if self.0.len() < MAX_TRANSFERS {
                    self.0.push((bus, target, now + IDLE));
                }
            }
            Some(&(TRANSFER_DATA | REQUEST_TRANSFER_EXIT)) => {
                for (at, of, until) in &mut self.0 {
                    if (*at, *of) == (bus, target) && *until > now {
                        *until = now + IDLE;
                    }
                }
            }
            _ => {}
        }
    }

    /// Handles the end of an ECU's transfer: its last answer, a broken chain, a channel that closes.
    pub(super) fn handle_ended(&mut self, bus: usize, target: IntentTarget) {
        self.0.retain(|(at, of, _)| (*at, *of) != (bus, target));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECU: IntentTarget = IntentTarget::Logical(0x1001);
    const OTHER: IntentTarget = IntentTarget::Logical(0x1002);

    #[test]
    fn blocks_are_covered_from_the_request_to_the_end_or_a_minute_of_silence() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut transfers = TransferGrants::new();
        assert!(!transfers.covers(start, 0, ECU, &[0x36, 1]));
        transfers.handle_sent(start, 0, ECU, &[0x34, 0, 0x44]);
        assert!(transfers.covers(start, 0, ECU, &[0x36, 1]) && transfers.covers(start, 0, ECU, &[0x37]));
        assert!(
            !transfers.covers(start, 0, OTHER, &[0x36, 1]) && !transfers.covers(start, 1, ECU, &[0x36, 1])
        );
        assert!(!transfers.covers(start, 0, ECU, &[0x34]) && !transfers.covers(start, 0, ECU, &[]));
        transfers.handle_sent(after(50), 0, ECU, &[0x36, 1]);
        assert!(transfers.covers(after(109), 0, ECU, &[0x36, 2]));
        assert!(!transfers.covers(after(110), 0, ECU, &[0x36, 2]));
        transfers.handle_sent(after(111), 0, ECU, &[0x36, 2]);
        assert!(!transfers.covers(after(111), 0, ECU, &[0x36, 3]), "a block does not begin a transfer");
        transfers.handle_sent(after(112), 0, ECU, &[0x34]);
        transfers.handle_ended(0, ECU);
        assert!(!transfers.covers(after(112), 0, ECU, &[0x36, 1]));
    }

    #[test]
    fn the_number_of_transfers_is_bounded() {
        let start = Instant::now();
        let mut transfers = TransferGrants::new();
        for address in 0..1000 {
            transfers.handle_sent(start, 0, IntentTarget::Logical(address), &[0x34]);
        }
        assert_eq!(transfers.0.len(), MAX_TRANSFERS);
        assert_eq!(transfers.0.capacity(), MAX_TRANSFERS);
    }
}
