//! Which channels are in the middle of a download, an upload or the erase before it: a pure state machine
//! (ISO 14229-1, 14, and ISO 14230-3, which has the same services).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::programming::{ROUTINE_CONTROL, is_programming_routine, pdu_start};

/// RequestDownload, RequestUpload, RequestFileTransfer.
const REQUEST_TRANSFER: [u8; 3] = [0x34, 0x35, 0x38];
/// TransferData.
const TRANSFER_DATA: u8 = 0x36;
/// The positive responses after which the ECU is in no transfer: to RequestTransferExit, RoutineControl,
/// DiagnosticSessionControl, ECUReset, StopDiagnosticSession and StopCommunication.
const ENDS: [u8; 6] = [0x77, 0x71, 0x50, 0x51, 0x60, 0xC2];
/// A transfer of which nothing was heard for this long is given up. The longest pause is a lost link, during which
/// a connection is held for 30 s.
const IDLE: Duration = Duration::from_secs(60);
/// After its end, a transfer counts until nothing was heard for this long: programming continues with a check or the
/// next transfer, and the last response must reach the operator.
const AFTER_END: Duration = Duration::from_secs(5);

/// The transfers of a connection.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    open: BTreeMap<u16, Transfer>,
}

/// The transfer of a channel.
#[derive(Debug)]
struct Transfer {
    /// When the channel's last PDU passed.
    last: Instant,
    has_ended: bool,
}

impl Transfers {
    /// The operator sends a PDU on this channel.
    pub(super) fn handle_request(&mut self, now: Instant, channel: u16, data: &[u8]) {
        let Some(service) = data.first() else { return };
        if REQUEST_TRANSFER.contains(service) || *service == TRANSFER_DATA || is_programming_routine(data) {
            self.open.insert(channel, Transfer { last: now, has_ended: false });
        } else if let Some(transfer) = self.open.get_mut(&channel) {
            transfer.last = now;
        }
    }

    /// The operator sends the frame with this data on a raw channel. ISO-TP with normal addressing is recognised.
    pub(super) fn handle_request_frame(&mut self, now: Instant, channel: u16, data: &[u8]) {
        match pdu_start(data) {
            Some(pdu) => self.handle_request(now, channel, pdu),
            // a consecutive frame, or flow control
            None => {
                if let Some(transfer) = self.open.get_mut(&channel) {
                    transfer.last = now;
                }
            }
        }
    }

    /// A frame of the vehicle with this data was received on a raw channel. Frames of any node may arrive there, so
    /// that they prolong no transfer.
    pub(super) fn handle_response_frame(&mut self, channel: u16, data: &[u8]) {
        let Some(transfer) = self.open.get_mut(&channel) else { return };
        transfer.has_ended |= pdu_start(data).is_some_and(ends_transfer);
    }

    /// A PDU of the vehicle was received on this channel.
    pub(super) fn handle_response(&mut self, now: Instant, channel: u16, data: &[u8]) {
        let Some(transfer) = self.open.get_mut(&channel) else { return };
        transfer.last = now;
        transfer.has_ended |= ends_transfer(data);
    }

    /// The channel was closed.
    pub(super) fn handle_closed(&mut self, channel: u16) {
        self.open.remove(&channel);
    }

    /// Until when a transfer counts as open if nothing more is heard of it; `None` if none is open.
    pub(super) fn open_until(&self, now: Instant) -> Option<Instant> {
        self.until().filter(|until| *until > now)
    }

    /// Until when a transfer counts as open if nothing more is heard of it, also if that time has passed.
    pub(super) fn until(&self) -> Option<Instant> {
        let until = |transfer: &Transfer| transfer.last + if transfer.has_ended { AFTER_END } else { IDLE };
        self.open.values().map(until).max()
    }
}

/// Whether an ECU that sends this response is in no transfer afterwards.
fn ends_transfer(response: &[u8]) -> bool {
    let is_refused = matches!(response, [0x7F, service, code, ..]
        if (REQUEST_TRANSFER.contains(service) || *service == ROUTINE_CONTROL) && *code != 0x78);
    is_refused || response.first().is_some_and(|first| ENDS.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: u16 = 1;

    /// The transfers after these PDUs: requests, and responses where `true`.
    fn after(pdus: &[(bool, &[u8])]) -> (Transfers, Instant) {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        for (is_response, data) in pdus {
            match is_response {
                false => transfers.handle_request(now, CHANNEL, data),
                true => transfers.handle_response(now, CHANNEL, data),
            }
        }
        (transfers, now)
    }

    fn is_open(pdus: &[(bool, &[u8])]) -> bool {
        let (transfers, now) = after(pdus);
        transfers.open_until(now + AFTER_END).is_some()
    }

    #[test]
    fn a_transfer_lasts_from_its_request_until_five_seconds_after_its_end() {
        let mut pdus: Vec<(bool, &[u8])> = vec![(false, &[0x34, 0, 0x44]), (true, &[0x74, 0x20])];
        assert!(is_open(&pdus));
        pdus.extend([(false, &[0x36, 1][..]), (true, &[0x7F, 0x36, 0x78]), (true, &[0x76, 1])]);
        assert!(is_open(&pdus));
        pdus.push((false, &[0x37]));
        assert!(is_open(&pdus), "the ECU has not confirmed the end");
        pdus.push((true, &[0x77]));
        let (transfers, now) = after(&pdus);
        assert_eq!(transfers.open_until(now), Some(now + AFTER_END));
        assert_eq!(transfers.open_until(now + AFTER_END), None);
        pdus.extend([(false, &[0x31, 1, 2, 2][..]), (true, &[0x71, 1, 2, 2]), (false, &[0x36, 1])]);
        let (transfers, now) = after(&pdus);
        assert_eq!(transfers.open_until(now), Some(now + IDLE), "the next transfer");
    }

    #[test]
    fn an_erase_counts_from_its_request_until_five_seconds_after_its_answer() {
        let erase: (bool, &[u8]) = (false, &[0x31, 1, 0xFF, 0, 0x44]);
        let (transfers, now) = after(&[erase, (true, &[0x7F, 0x31, 0x78])]);
        assert_eq!(transfers.open_until(now), Some(now + IDLE));
        for answer in [&[0x71, 1, 0xFF, 0][..], &[0x7F, 0x31, 0x22]] {
            let (transfers, now) = after(&[erase, (true, answer)]);
            assert_eq!(transfers.open_until(now), Some(now + AFTER_END), "{answer:02X?}");
        }
    }

    #[test]
    fn a_download_in_frames_of_isotp_is_recognised() {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        transfers.handle_request_frame(now, CHANNEL, &[0x02, 0x3E, 0x80]);
        assert_eq!(transfers.open_until(now), None);
        transfers.handle_request_frame(now, CHANNEL, &[0x10, 0x0B, 0x34, 0x00, 0x44, 0, 0, 0]);
        assert_eq!(transfers.open_until(now), Some(now + IDLE));
        let later = now + Duration::from_secs(1);
        transfers.handle_request_frame(later, CHANNEL, &[0x21, 0, 0, 0, 0, 0]);
        transfers.handle_response_frame(CHANNEL, &[0x04, 0x74, 0x20, 0x0F, 0xFF]);
        assert_eq!(transfers.open_until(later), Some(later + IDLE));
        transfers.handle_request_frame(later, CHANNEL, &[0x01, 0x37]);
        transfers.handle_response_frame(CHANNEL, &[0x01, 0x77]);
        assert_eq!(transfers.open_until(later), Some(later + AFTER_END));
    }

    #[test]
    fn other_services_open_no_transfer() {
        assert!(!is_open(&[(false, &[0x31, 1, 2, 3]), (false, &[0x31, 1])]));
        assert!(!is_open(&[(false, &[0x22, 0xF1, 0x90]), (true, &[0x62]), (false, &[0x3E]), (false, &[])]));
        assert!(!is_open(&[(true, &[0x76, 1])]));
    }

    #[test]
    fn a_refused_transfer_and_a_new_session_end_a_transfer() {
        let request: (bool, &[u8]) = (false, &[0x34]);
        assert!(!is_open(&[request, (true, &[0x7F, 0x34, 0x70])]));
        assert!(is_open(&[request, (true, &[0x7F, 0x34, 0x78])]), "response pending");
        assert!(is_open(&[request, (true, &[0x7F, 0x36, 0x24])]), "the operator decides what to do");
        for end in [0x50, 0x51, 0x60, 0xC2] {
            assert!(!is_open(&[request, (true, &[end, 1])]), "{end:#X}");
        }
    }

    #[test]
    fn a_transfer_ends_with_its_channel_and_after_a_minute_without_a_pdu() {
        let (mut transfers, now) = after(&[(false, &[0x36, 1])]);
        assert_eq!(transfers.open_until(now), Some(now + IDLE));
        assert_eq!(transfers.open_until(now + IDLE), None);
        transfers.handle_closed(CHANNEL + 1);
        assert!(transfers.open_until(now).is_some());
        transfers.handle_closed(CHANNEL);
        assert_eq!(transfers.open_until(now), None);
    }
}
