//! Which frames belong to which two sides (ISO 15765-2, 10.3).

use connector_hal::can::{CanFrame, CanId};

const NORMAL_FIXED: u32 = 0x18DA_0000;
const MIXED_FIXED: u32 = 0x18CE_0000;

/// Which identifiers and address bytes stand for the two sides (ISO 15765-2, 10.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressing {
    transmit: CanId,
    receive: CanId,
    transmit_address: Option<u8>,
    receive_address: Option<u8>,
}

impl Addressing {
    /// Any identifiers, with or without an address byte each way.
    pub fn new(
        transmit: CanId,
        receive: CanId,
        transmit_address: Option<u8>,
        receive_address: Option<u8>,
    ) -> Self {
        Self { transmit, receive, transmit_address, receive_address }
    }

    /// Normal addressing: the identifiers say it all.
    pub fn normal(transmit: CanId, receive: CanId) -> Self {
        Self::new(transmit, receive, None, None)
    }

    /// Normal fixed addressing, physical: 0x18DA`target``source` out, 0x18DA`source``target` in.
    pub fn normal_fixed(target: u8, source: u8) -> Self {
        let (transmit, receive) = fixed_pair(NORMAL_FIXED, target, source);
        Self::normal(transmit, receive)
    }

    /// Extended addressing: the first data byte is the address of whom the frame is for.
    pub fn extended(transmit: CanId, receive: CanId, transmit_address: u8, receive_address: u8) -> Self {
        Self::new(transmit, receive, Some(transmit_address), Some(receive_address))
    }

    /// Mixed addressing with any identifiers (11 bits by the standard): the same address extension both ways.
    pub fn mixed(transmit: CanId, receive: CanId, address_extension: u8) -> Self {
        Self::extended(transmit, receive, address_extension, address_extension)
    }

    /// Mixed addressing with 29 bits, physical: 0x18CE`target``source` out, 0x18CE`source``target` in.
    pub fn mixed_fixed(target: u8, source: u8, address_extension: u8) -> Self {
        let (transmit, receive) = fixed_pair(MIXED_FIXED, target, source);
        Self::mixed(transmit, receive, address_extension)
    }

    /// The identifier of what we send.
    pub fn transmit_id(&self) -> CanId {
        self.transmit
    }

    /// The identifier of what we receive.
    pub fn receive_id(&self) -> CanId {
        self.receive
    }

    /// How many data bytes of each frame sent the address takes: 0 or 1.
    pub fn address_bytes(&self) -> usize {
        usize::from(self.transmit_address.is_some())
    }

    /// The address bytes that our frames and the peer's begin with, where there are both.
    pub fn addresses(&self) -> Option<(u8, u8)> {
        self.transmit_address.zip(self.receive_address)
    }

    /// Whether a frame is for us: a data frame whose identifier, format and address byte match.
    pub fn accepts(&self, frame: &CanFrame) -> bool {
        frame.is_data() && frame.id() == self.receive && address_matches(self.receive_address, frame.data())
    }

    pub(super) fn transmit_address(&self) -> Option<u8> {
        self.transmit_address
    }

    /// How many data bytes of each frame received the address takes.
    pub(super) fn receive_address_bytes(&self) -> usize {
        usize::from(self.receive_address.is_some())
    }
}

/// The identifier to send flow control to, where only the response's is known.
///
/// 0x7E8…0x7EF are answered on 0x7E0…0x7E7 (ISO 15765-4), 0x18DAxxyy on 0x18DAyyxx, any other 29-bit identifier with
/// its two addresses swapped likewise; other 11-bit ones on the identifier 8 below, as most manufacturers have it.
pub fn physical_request_id(response: CanId) -> CanId {
    let raw = response.raw();
    if response.is_extended() {
        CanId::extended_truncated(raw & !0xFFFF | (raw & 0xFF) << 8 | (raw >> 8) & 0xFF)
    } else {
        CanId::standard_truncated(raw.wrapping_sub(8))
    }
}

/// Whether the data begin with the address byte, where there is one.
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
    fn fixed_addresses_stand_in_the_identifier_target_first() {
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
    fn flow_control_goes_to_the_physical_address_of_who_answered() {
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
