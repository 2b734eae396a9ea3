//! The frames in which an ISO-TP channel sends a PDU, for the ECUs that read them with the other form of addressing.

use crate::protocol::isotp::NPdu;

use super::super::services::can_be_carried_out;

/// The length of a classic frame. Shorter frames are padded, so that nothing behind a PDU is overlooked.
const FRAME: usize = 8;
/// The padding of ISO 15765-4.
const PADDING: u8 = 0xCC;
/// The longest PDU whose length fits into 12 bits (ISO 15765-2, 9.6.3).
const SHORT_LENGTH: usize = 0xFFF;

/// The single frame, or first frame and consecutive frames, of a PDU.
pub(in crate::policy) struct ChannelFrames<'a> {
    extended: Option<u8>,
    pdu: &'a [u8],
    left: &'a [u8],
    next: u8,
    has_begun: bool,
}

impl<'a> ChannelFrames<'a> {
    pub(in crate::policy) fn new(extended: Option<u8>, pdu: &'a [u8]) -> Self {
        Self { extended, pdu, left: pdu, next: 1, has_begun: false }
    }

    /// The N_PCI of the next frame.
    fn pci(&mut self) -> ([u8; 6], usize) {
        let length = self.pdu.len();
        let bytes = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let [a, b, high, low] = bytes;
        if self.has_begun {
            let pci = 0x20 | self.next;
            self.next = (self.next + 1) & 0x0F;
            return ([pci, 0, 0, 0, 0, 0], 1);
        }
        self.has_begun = true;
        match length {
            _ if length + usize::from(self.extended.is_some()) < FRAME => ([low, 0, 0, 0, 0, 0], 1),
            0..=SHORT_LENGTH => ([0x10 | high, low, 0, 0, 0, 0], 2),
            _ => ([0x10, 0, a, b, high, low], 6),
        }
    }
}

impl Iterator for ChannelFrames<'_> {
    type Item = [u8; FRAME];

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_begun && self.left.is_empty() {
            return None;
        }
        let (pci, pci_length) = self.pci();
        let mut frame = [PADDING; FRAME];
        let head = self.extended.into_iter().chain(pci.into_iter().take(pci_length));
        let room = FRAME - pci_length - usize::from(self.extended.is_some());
        let (now, left) = self.left.split_at(room.min(self.left.len()));
        self.left = left;
        for (byte, value) in frame.iter_mut().zip(head.chain(now.iter().copied())) {
            *byte = value;
        }
        Some(frame)
    }
}

/// The request that begins in a frame for ECUs with the address byte `extended`, or for those without one. Bytes of the
/// other form of addressing often look like a service that no ECU has: those are no request.
pub(in crate::policy) fn request_in(extended: Option<u8>, frame: &[u8]) -> Option<&[u8]> {
    match NPdu::decode(frame, usize::from(extended.is_some())) {
        Ok(NPdu::SingleFrame { data }) => Some(data).filter(|data| can_be_carried_out(data)),
        // the rest comes in consecutive frames, so that the first bytes need not suffice for the service
        Ok(NPdu::FirstFrame { data, .. }) => {
            let mut longest = [0; FRAME];
            longest.iter_mut().zip(data).for_each(|(byte, value)| *byte = *value);
            Some(data).filter(|_| can_be_carried_out(&longest))
        }
        _ => None,
    }
}
