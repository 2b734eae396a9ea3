//! The options of an ISO-TP socket, and their layout in the kernel (`linux/can/isotp.h`).

use crate::can::CanId;

const EXTEND_ADDR: u32 = 0x002;
const TX_PADDING: u32 = 0x004;
const RX_EXT_ADDR: u32 = 0x200;
const DYN_FC_PARMS: u32 = 0x2000;
/// The kernel waits for each frame's echo and does not estimate the time on the wire.
const FRAME_TXTIME_ZERO: u32 = u32::MAX;
/// `sizeof(struct can_frame)` and `sizeof(struct canfd_frame)`.
const CLASSIC_MTU: u8 = 16;
const FD_MTU: u8 = 72;
const BRS: u8 = 0x01;

/// The options of an ISO-TP socket (ISO 15765-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsotpOptions {
    /// The identifier of the frames that we send.
    pub transmit: CanId,
    /// The identifier of the frames that we receive.
    pub receive: CanId,
    /// The address bytes at the start of each frame, ours and the peer's; `None` without an address byte.
    pub addresses: Option<(u8, u8)>,
    /// The padding byte; `None` for frames without padding.
    pub padding: Option<u8>,
    /// TX_DL (8, 12, 16, 20, 24, 32, 48 or 64) and whether to switch the bit rate; `None` for classic frames.
    pub fd: Option<(u8, bool)>,
    /// How many consecutive frames a peer may send before it waits for a flow control; 0 for all.
    pub block_size: u8,
    /// The separation time that a peer must keep, as coded on the wire.
    pub st_min: u8,
}

impl IsotpOptions {
    /// Normal addressing, classic frames padded with 0xCC, no block size and no separation time.
    pub fn new(transmit: CanId, receive: CanId) -> Self {
        let padding = Some(0xCC);
        Self { transmit, receive, addresses: None, padding, fd: None, block_size: 0, st_min: 0 }
    }

    /// `struct can_isotp_options`.
    pub(super) fn general(&self) -> [u8; 12] {
        // each flow control replaces the parameters of the one before, as in our own sender
        let mut flags = DYN_FC_PARMS;
        let (transmit_address, receive_address) = self.addresses.unwrap_or_default();
        if self.addresses.is_some() {
            flags |= EXTEND_ADDR | RX_EXT_ADDR;
        }
        if self.padding.is_some() {
            flags |= TX_PADDING;
        }
        let padding = self.padding.unwrap_or_default();
        let [f0, f1, f2, f3] = flags.to_ne_bytes();
        let [t0, t1, t2, t3] = FRAME_TXTIME_ZERO.to_ne_bytes();
        [f0, f1, f2, f3, t0, t1, t2, t3, transmit_address, padding, padding, receive_address]
    }

    /// `struct can_isotp_fc_options`.
    pub(super) fn flow_control(&self) -> [u8; 3] {
        [self.block_size, self.st_min, 0]
    }

    /// `struct can_isotp_ll_options`.
    pub(super) fn link_layer(&self) -> [u8; 3] {
        match self.fd {
            Some((tx_dl, bit_rate_switch)) => [FD_MTU, tx_dl, if bit_rate_switch { BRS } else { 0 }],
            None => [CLASSIC_MTU, 8, 0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_options_have_the_kernels_layout() {
        let id = |id| CanId::try_from(id).unwrap();
        let plain = IsotpOptions::new(id(0x7E0), id(0x7E8));
        let mut expected = 0x2004_u32.to_ne_bytes().to_vec();
        expected.extend([0xFF, 0xFF, 0xFF, 0xFF, 0, 0xCC, 0xCC, 0]);
        assert_eq!(plain.general().to_vec(), expected);
        assert_eq!((plain.flow_control(), plain.link_layer()), ([0, 0, 0], [16, 8, 0]));
        let all = IsotpOptions {
            addresses: Some((0x10, 0xF1)),
            padding: None,
            fd: Some((48, true)),
            block_size: 8,
            st_min: 0xF1,
            ..plain
        };
        let mut expected = 0x2202_u32.to_ne_bytes().to_vec();
        expected.extend([0xFF, 0xFF, 0xFF, 0xFF, 0x10, 0, 0, 0xF1]);
        assert_eq!(all.general().to_vec(), expected);
        assert_eq!((all.flow_control(), all.link_layer()), ([8, 0xF1, 0], [72, 48, 1]));
    }
}
