//! The shortest possible time of a download on a bus: all frames back to back.

use std::time::Duration;

use connector_hal::can::{CanFrame, CanId, CanSettings, WireLength};

use crate::vehicle::catalogue::EcuAddress;

/// The padding byte of the connector.
const OUR_PADDING: u8 = 0xCC;
/// The padding byte of the simulated ECUs.
const ECU_PADDING: u8 = 0xAA;

/// Sums up the time that frames take on a classic bus.
struct Wire {
    settings: CanSettings,
    taken: Duration,
}

impl Wire {
    fn put(&mut self, id: CanId, extended: Option<u8>, bytes: &[u8], padding: u8) {
        let mut data: Vec<u8> = extended.into_iter().chain(bytes.iter().copied()).collect();
        data.resize(8, padding);
        if let Ok(frame) = CanFrame::new(id, &data) {
            self.taken += WireLength::of(&frame).occupancy(&self.settings);
        }
    }

    /// Adds a PDU sent by ISO-TP, with one flow control if the PDU takes more than one frame.
    fn put_pdu(&mut self, address: &EcuAddress, pdu: &[u8]) {
        let (request, response, extended) = (address.request, address.response, address.extended);
        let room = if extended.is_some() { 7 } else { 8 };
        if pdu.len() < room {
            return self.put(request, extended, &[&[pdu.len() as u8], pdu].concat(), OUR_PADDING);
        }
        let (first, rest) = pdu.split_at(room - 2);
        let [high, low] = (pdu.len() as u16).to_be_bytes();
        self.put(request, extended, &[&[0x10 | high, low], first].concat(), OUR_PADDING);
        self.put(response, extended, &[0x30, 0, 0], ECU_PADDING);
        for (index, piece) in rest.chunks(room - 1).enumerate() {
            let number = 0x20 | ((index + 1) as u8 & 0x0F);
            self.put(request, extended, &[&[number], piece].concat(), OUR_PADDING);
        }
    }
}

/// The shortest time in which `data` can be downloaded in blocks of `block_length`, with the response to
/// each block.
pub(super) fn transfer_time(
    address: &EcuAddress,
    bit_rate: u32,
    data: &[u8],
    block_length: usize,
) -> Duration {
    let settings = CanSettings { bit_rate, data_bit_rate: None, listen_only: false };
    let mut wire = Wire { settings, taken: Duration::ZERO };
    for (index, block) in data.chunks(block_length.saturating_sub(2).max(1)).enumerate() {
        let counter = (index + 1) as u8;
        wire.put_pdu(address, &[&[0x36, counter], block].concat());
        wire.put(address.response, address.extended, &[2, 0x76, counter], ECU_PADDING);
    }
    wire.taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transfer_time_of_4095_bytes_matches_the_measured_one() {
        let address = EcuAddress {
            request: CanId::standard(0x7E0).unwrap(),
            response: CanId::standard(0x7E8).unwrap(),
            extended: None,
        };
        let mut random = fastrand::Rng::with_seed(7);
        let data: Vec<u8> = (0..4093).map(|_| random.u8(..)).collect();
        let taken = transfer_time(&address, 500_000, &data, 4095);
        // 586 request frames, one flow control and one response, of 111 to 135 bits and 3 bits of
        // intermission each
        assert!(taken > Duration::from_millis(131) && taken < Duration::from_millis(142), "{taken:?}");
    }
}
