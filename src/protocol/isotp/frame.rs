//! CAN frames of N_PDUs: address byte, padding, classic or FD.

use connector_hal::can::{CanFrame, CanId, FdFlags, MAX_FD_LEN, fd_length};

use super::config::PADDING_BYTE;
use super::pci::{PciHeader, max_single_frame};
use super::{FrameSize, NPdu, Padding};

/// Writes the frames that one side sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameWriter {
    pub(super) id: CanId,
    pub(super) address: Option<u8>,
    pub(super) frame_size: FrameSize,
}

impl FrameWriter {
    pub(super) fn address_bytes(&self) -> usize {
        usize::from(self.address.is_some())
    }

    /// Returns the longest PDU that fits a single frame, in bytes.
    pub(super) fn max_single_frame(&self) -> usize {
        max_single_frame(self.frame_size.tx_dl(), self.address_bytes())
    }

    /// Returns the number of PDU bytes that fit a frame behind this header.
    pub(super) fn room_after(&self, header: &PciHeader) -> usize {
        self.frame_size.tx_dl().saturating_sub(self.address_bytes() + header.bytes().len())
    }

    /// Returns the frame, or `None` if header and data do not fit.
    pub(super) fn write(&self, header: &PciHeader, data: &[u8], fill: Fill) -> Option<CanFrame> {
        let mut bytes = [fill.byte; MAX_FD_LEN];
        let mut used = 0;
        for part in [self.address.as_slice(), header.bytes(), data] {
            bytes.get_mut(used..)?.get_mut(..part.len())?.copy_from_slice(part);
            used += part.len();
        }
        let least = if fill.to_eight { used.max(8) } else { used };
        match self.frame_size {
            FrameSize::Classic => CanFrame::new(self.id, bytes.get(..least)?).ok(),
            FrameSize::Fd { bit_rate_switch, .. } => {
                let flags = FdFlags { bit_rate_switch, error_state: false };
                CanFrame::new_fd(self.id, flags, bytes.get(..fd_length(least)?)?).ok()
            }
        }
    }
}

/// The padding of one frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    to_eight: bool,
    byte: u8,
}

/// The configured [`Padding`], and whether the peer pads its frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct PaddingState {
    padding: Padding,
    peer_pads: bool,
}

impl PaddingState {
    pub(super) fn new(padding: Padding) -> Self {
        Self { padding, peer_pads: true }
    }

    pub(super) fn fill(&self) -> Fill {
        match self.padding {
            Padding::Enabled(byte) => Fill { to_eight: true, byte },
            Padding::Disabled => Fill { to_eight: false, byte: PADDING_BYTE },
            Padding::Detection(byte) => Fill { to_eight: self.peer_pads, byte },
        }
    }

    /// Detects from a frame of the peer whether the peer pads.
    pub(super) fn observe(&mut self, frame: &CanFrame, n_pdu: &NPdu<'_>, address_bytes: usize) {
        if let Some(used) = n_pdu.used(address_bytes) {
            self.observe_used(frame, used);
        }
    }

    /// Detects from a frame of the peer with `used` meaningful bytes whether the peer pads.
    pub(super) fn observe_used(&mut self, frame: &CanFrame, used: usize) {
        if used < 8 {
            self.peer_pads = frame.len() > used;
        }
    }
}
