//! The frames in which an ISO-TP channel sends a PDU, for the ECUs that read them with the other form of addressing.

use connector_hal::can::{MAX_FD_LEN, fd_length};

use super::super::intent::Framing;
use super::super::services::can_be_carried_out;
use crate::protocol::isotp::NPdu;
use crate::protocol::uds::POSITIVE_OFFSET;

/// The length of a classic frame. Shorter frames are padded, so that nothing behind a PDU is overlooked.
const CLASSIC: usize = 8;
/// The longest PDU whose length fits into 12 bits (ISO 15765-2, 9.6.3).
const SHORT_LENGTH: usize = 0xFFF;

/// A frame of a channel.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct ChannelFrame {
    bytes: [u8; MAX_FD_LEN],
    length: usize,
    /// The number of bytes before the padding.
    used: usize,
}

impl ChannelFrame {
    /// The flow control of a channel with this address byte, or without one.
    pub(in crate::policy) fn flow_control(extended: Option<u8>, framing: Framing) -> Self {
        Self::new(framing.padding, extended.into_iter().chain([0x30]).chain(framing.flow_control))
    }

    fn new(padding: u8, content: impl Iterator<Item = u8>) -> Self {
        let mut frame = Self { bytes: [padding; MAX_FD_LEN], length: CLASSIC, used: 0 };
        for (byte, value) in frame.bytes.iter_mut().zip(content) {
            *byte = value;
            frame.used += 1;
        }
        frame.length = fd_length(frame.used.max(CLASSIC)).unwrap_or(MAX_FD_LEN);
        frame
    }

    fn data(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The address byte with which ECUs may read the frame that have another form of addressing than the channel.
    pub(in crate::policy) fn other_form(&self, extended: Option<u8>) -> Option<u8> {
        if extended.is_some() { None } else { self.data().first().copied() }
    }

    /// The request that begins in the frame for ECUs with the address byte `extended`, or for those without one. Bytes of
    /// the other form of addressing often look like a service that no ECU has: those are no request. Of a first frame,
    /// they are the padding, and the first bytes of responses.
    pub(in crate::policy) fn request(&self, extended: Option<u8>) -> Option<&[u8]> {
        match NPdu::decode(self.data(), usize::from(extended.is_some())) {
            Ok(NPdu::SingleFrame { data }) => Some(data).filter(|data| can_be_carried_out(data)),
            // the rest comes in consecutive frames, so that the first bytes need not suffice for the service
            Ok(NPdu::FirstFrame { data, .. }) => {
                let is_padding = self.length - data.len() >= self.used;
                let is_response = data.first().is_none_or(|service| service & POSITIVE_OFFSET != 0);
                let mut longest = [0; CLASSIC];
                longest.iter_mut().zip(data).for_each(|(byte, value)| *byte = *value);
                Some(data).filter(|_| !is_padding && !is_response || can_be_carried_out(&longest))
            }
            _ => None,
        }
    }
}

/// The single frame, or first frame and consecutive frames, of a PDU.
pub(in crate::policy) struct ChannelFrames<'a> {
    extended: Option<u8>,
    framing: Framing,
    pdu: &'a [u8],
    left: &'a [u8],
    next: u8,
    has_begun: bool,
}

impl<'a> ChannelFrames<'a> {
    pub(in crate::policy) fn new(extended: Option<u8>, framing: Framing, pdu: &'a [u8]) -> Self {
        Self { extended, framing, pdu, left: pdu, next: 1, has_begun: false }
    }

    /// The N_PCI of the next frame.
    fn pci(&mut self) -> ([u8; 6], usize) {
        let length = self.pdu.len();
        let [a, b, high, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if self.has_begun {
            let pci = 0x20 | self.next;
            self.next = (self.next + 1) & 0x0F;
            return ([pci, 0, 0, 0, 0, 0], 1);
        }
        self.has_begun = true;
        let with_address = length + usize::from(self.extended.is_some());
        match length {
            _ if with_address < CLASSIC => ([low, 0, 0, 0, 0, 0], 1),
            // CAN FD: the length has a byte of its own (9.6.2)
            _ if with_address + 2 <= self.framing.tx_dl.into() && self.framing.tx_dl > 8 => {
                ([0, low, 0, 0, 0, 0], 2)
            }
            0..=SHORT_LENGTH => ([0x10 | high, low, 0, 0, 0, 0], 2),
            _ => ([0x10, 0, a, b, high, low], 6),
        }
    }
}

impl Iterator for ChannelFrames<'_> {
    type Item = ChannelFrame;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_begun && self.left.is_empty() {
            return None;
        }
        let (pci, pci_length) = self.pci();
        let head = self.extended.into_iter().chain(pci.into_iter().take(pci_length));
        let taken = pci_length + usize::from(self.extended.is_some());
        let room = usize::from(self.framing.tx_dl).max(CLASSIC).saturating_sub(taken);
        let (now, left) = self.left.split_at(room.min(self.left.len()));
        self.left = left;
        Some(ChannelFrame::new(self.framing.padding, head.chain(now.iter().copied())))
    }
}
