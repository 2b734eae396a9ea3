//! Identifiers and address bytes of the two peers (ISO 15765-2, 10.3).

use connector_hal::can::{CanFrame, CanId};

const NORMAL_FIXED: u32 = 0x18DA_0000;
const MIXED_FIXED: u32 = 0x18CE_0000;

/// The identifiers and address bytes that two peers use (ISO 15765-2, 10.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressing {
    transmit: CanId,
    receive: CanId,
    transmit_address: Option<u8>,
    receive_address: Option<u8>,
}

impl Addressing {
    /// Creates an address from any identifiers, with or without an address byte in each direction.
    pub fn new(
        transmit: CanId,
        receive: CanId,
        transmit_address: Option<u8>,
        receive_address: Option<u8>,
    ) -> Self {
        Self { transmit, receive, transmit_address, receive_address }
    }

    /// Normal addressing: the identifiers alone address the peers.
    pub fn normal(transmit: CanId, receive: CanId) -> Self {
        Self::new(transmit, receive, None, None)
    }

    /// Physical normal fixed addressing: transmits with 0x18DA`target``source`, receives
    /// 0x18DA`source``target`.
    pub fn normal_fixed(target: u8, source: u8) -> Self {
        let (transmit, receive) = fixed_pair(NORMAL_FIXED, target, source);
        Self::normal(transmit, receive)
    }

    /// Extended addressing: the first data byte is the address of the frame's receiver.
    pub fn extended(transmit: CanId, receive: CanId, transmit_address: u8, receive_address: u8) -> Self {
        Self::new(transmit, receive, Some(transmit_address), Some(receive_address))
    }

    /// Mixed addressing: the first data byte is the same address extension in both directions.
    ///
    /// The standard defines this for 11-bit identifiers.
    pub fn mixed(transmit: CanId, receive: CanId, address_extension: u8) -> Self {
        Self::extended(transmit, receive, address_extension, address_extension)
    }

    /// Physical mixed addressing with 29 bits: transmits with 0x18CE`target``source`, receives
    /// 0x18CE`source``target`.
    pub fn mixed_fixed(target: u8, source: u8, address_extension: u8) -> Self {
        let (transmit, receive) = fixed_pair(MIXED_FIXED, target, source);
        Self::mixed(transmit, receive, address_extension)
    }

    /// Returns the identifier with which this side sends.
    pub fn transmit_id(&self) -> CanId {
        self.transmit
    }

    /// Returns the identifier with which the peer sends.
    pub fn receive_id(&self) -> CanId {
        self.receive
    }

    /// Returns the number of address bytes in each sent frame: 0 or 1.
    pub fn address_bytes(&self) -> usize {
        usize::from(self.transmit_address.is_some())
    }

    /// Returns whether the frames of one direction only have an address byte.
    pub fn is_one_sided(&self) -> bool {
        self.transmit_address.is_some() != self.receive_address.is_some()
    }

    /// Returns the address bytes of sent and received frames, if both have one.
    pub fn addresses(&self) -> Option<(u8, u8)> {
        self.transmit_address.zip(self.receive_address)
    }

    /// Returns whether this is a data frame with the identifier, format and address byte of the peer's
    /// frames.
    pub fn accepts(&self, frame: &CanFrame) -> bool {
        frame.is_data() && frame.id() == self.receive && address_matches(self.receive_address, frame.data())
    }

    pub(super) fn transmit_address(&self) -> Option<u8> {
        self.transmit_address
    }

    /// Returns the number of address bytes in each received frame: 0 or 1.
    pub(super) fn receive_address_bytes(&self) -> usize {
        usize::from(self.receive_address.is_some())
    }
}

/// Returns the request identifier of the ECU with this response identifier, if a standard assigns it.
///
/// - 0x7E8…0x7EF: 0x7E0…0x7E7 (ISO 15765-4).
/// - 0x18DAxxyy and 0x18CExxyy: the same identifier with its two addresses swapped (ISO 15765-2, 10.3).
pub(super) fn known_request_id(response: CanId) -> Option<CanId> {
    let raw = response.raw();
    let is_assigned = match response.is_extended() {
        true => matches!(raw & !0xFFFF, NORMAL_FIXED | MIXED_FIXED),
        false => raw & !0x7 == 0x7E8,
    };
    // an ECU with equal addresses would send with the identifier of its requests
    is_assigned.then(|| physical_request_id(response)).filter(|request| *request != response)
}

/// Returns the most likely request identifier of an ECU of which only the response identifier is known. No frame
/// may be sent to a vehicle because of this guess.
///
/// - 0x7E8…0x7EF: 0x7E0…0x7E7 (ISO 15765-4).
/// - 0x18DAxxyy and any other 29-bit identifier: the same identifier with its two addresses swapped.
/// - Any other 11-bit identifier: the identifier minus 8, as many manufacturers assign it.
pub fn physical_request_id(response: CanId) -> CanId {
    let raw = response.raw();
    if response.is_extended() {
        CanId::extended_truncated(raw & !0xFFFF | (raw & 0xFF) << 8 | (raw >> 8) & 0xFF)
    } else {
        CanId::standard_truncated(raw.wrapping_sub(8))
    }
}

/// Returns whether the data begin with the address byte, or no address byte is used.
pub(super) fn address_matches(address: Option<u8>, data: &[u8]) -> bool {
    address.is_none_or(|address| data.first() == Some(&address))
}

fn fixed_pair(base: u32, target: u8, source: u8) -> (CanId, CanId) {
    let out = base | u32::from(target) << 8 | u32::from(source);
    let back = base | u32::from(source) << 8 | u32::from(target);
    (CanId::extended_truncated(out), CanId::extended_truncated(back))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> CanId {
        CanId::try_from(id).unwrap()
    }

    #[test]
    fn fixed_addresses_are_in_the_identifier_with_the_target_first() {
        let normal = Addressing::normal_fixed(0x10, 0xF1);
        assert_eq!(normal, Addressing::normal(id(0x18DA_10F1), id(0x18DA_F110)));
        let mixed = Addressing::mixed_fixed(0x10, 0xF1, 0x99);
        assert_eq!(mixed, Addressing::mixed(id(0x18CE_10F1), id(0x18CE_F110), 0x99));
        assert_eq!((normal.address_bytes(), mixed.address_bytes()), (0, 1));
    }

    #[test]
    fn only_data_frames_of_the_peer_with_the_right_address_byte_are_accepted() {
        let addressing = Addressing::extended(id(0x6F1), id(0x612), 0x12, 0xF1);
        let frame = |id, data: &[u8]| CanFrame::new(id, data).unwrap();
        assert!(addressing.accepts(&frame(id(0x612), &[0xF1, 1, 2])));
        assert!(!addressing.accepts(&frame(id(0x612), &[0x12, 1, 2])));
        assert!(!addressing.accepts(&frame(id(0x612), &[])));
        assert!(!addressing.accepts(&frame(id(0x613), &[0xF1, 1, 2])));
        assert!(!addressing.accepts(&frame(CanId::extended(0x612).unwrap(), &[0xF1, 1, 2])));
        let normal = Addressing::normal(id(0x7E0), id(0x7E8));
        assert!(normal.accepts(&frame(id(0x7E8), &[])));
        assert!(!normal.accepts(&CanFrame::new_remote(id(0x7E8), 8).unwrap()));
        assert!(!normal.accepts(&CanFrame::new_error(0x7E8, [0; 8])));
    }

    #[test]
    fn a_request_identifier_is_known_only_where_a_standard_assigns_it() {
        for (response, request) in [(0x7E8, 0x7E0), (0x18DA_F110, 0x18DA_10F1), (0x18CE_F133, 0x18CE_33F1)] {
            assert_eq!(known_request_id(id(response)), Some(id(request)), "{response:X}");
        }
        // Volkswagen, PSA, Nissan, BMW, General Motors: each has another distance
        for response in
            [0x77E, 0x652, 0x763, 0x612, 0x641, 0x738, 0x7F0, 0x18DB_F110, 0x18DA_F1F1, 0x18CE_3333]
        {
            assert_eq!(known_request_id(id(response)), None, "{response:X}");
        }
    }

    #[test]
    fn the_likely_request_identifier_follows_the_usual_rules() {
        for (response, request) in [
            (0x7E8, 0x7E0),
            (0x7EF, 0x7E7),
            (0x768, 0x760),
            (0x18DA_F110, 0x18DA_10F1),
            (0x18CE_F133, 0x18CE_33F1),
        ] {
            assert_eq!(physical_request_id(id(response)), id(request), "{response:X}");
        }
    }
}
