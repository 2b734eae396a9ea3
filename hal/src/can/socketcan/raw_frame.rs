//! Frames in the layout of a raw CAN socket (`linux/can.h`).

use crate::can::{CanFrame, CanId, FdFlags, FrameKind};

const EFF_FLAG: u32 = 0x8000_0000;
const RTR_FLAG: u32 = 0x4000_0000;
const ERR_FLAG: u32 = 0x2000_0000;
const BRS: u8 = 0x01;
const ESI: u8 = 0x02;
/// `sizeof(struct can_frame)`.
pub(super) const CLASSIC_MTU: usize = 16;
/// `sizeof(struct canfd_frame)`.
pub(super) const FD_MTU: usize = 72;

/// A frame in the kernel's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawFrame {
    bytes: [u8; FD_MTU],
    len: usize,
}

impl RawFrame {
    /// The bytes to write.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl From<&CanFrame> for RawFrame {
    fn from(frame: &CanFrame) -> Self {
        let id = frame.id().to_socketcan();
        let (id, flags, len) = match frame.kind() {
            FrameKind::Data => (id, 0, CLASSIC_MTU),
            FrameKind::Remote => (id | RTR_FLAG, 0, CLASSIC_MTU),
            FrameKind::Error { classes } => (classes | ERR_FLAG, 0, CLASSIC_MTU),
            FrameKind::Fd(FdFlags { bit_rate_switch, error_state }) => {
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                (id, flag(bit_rate_switch, BRS) | flag(error_state, ESI), FD_MTU)
            }
        };
        let mut bytes = [0; FD_MTU];
        let header = id.to_ne_bytes().into_iter().chain([frame.len() as u8, flags, 0, 0]);
        for (to, from) in bytes.iter_mut().zip(header.chain(frame.data().iter().copied())) {
            *to = from;
        }
        Self { bytes, len }
    }
}

/// Parses the bytes of a frame from a socket; `None` if they are not a valid frame.
pub(super) fn parse(bytes: &[u8]) -> Option<CanFrame> {
    let (id, rest) = bytes.split_first_chunk()?;
    let id = u32::from_ne_bytes(*id);
    let ([len, flags, _, _], data) = rest.split_first_chunk()?;
    let len = usize::from(*len);
    if id & ERR_FLAG != 0 {
        return Some(CanFrame::new_error(id & !ERR_FLAG, *data.first_chunk()?));
    }
    let can_id = if id & EFF_FLAG != 0 {
        CanId::extended_truncated(id & !(EFF_FLAG | RTR_FLAG))
    } else {
        CanId::standard_truncated(id)
    };
    let frame = match bytes.len() {
        CLASSIC_MTU if id & RTR_FLAG != 0 => CanFrame::new_remote(can_id, len),
        CLASSIC_MTU => CanFrame::new(can_id, data.get(..len)?),
        FD_MTU => {
            // mask the kernel's additional flags
            let flags = FdFlags { bit_rate_switch: flags & BRS != 0, error_state: flags & ESI != 0 };
            CanFrame::new_fd(can_id, flags, data.get(..len)?)
        }
        _ => return None,
    };
    frame.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_have_the_kernels_layout() {
        let id = CanId::extended(0x18DA_F110).unwrap();
        let raw = RawFrame::from(&CanFrame::new(id, &[0xAB, 0xCD]).unwrap());
        let mut expected = 0x98DA_F110_u32.to_ne_bytes().to_vec();
        expected.extend([2, 0, 0, 0, 0xAB, 0xCD, 0, 0, 0, 0, 0, 0]);
        assert_eq!(raw.as_bytes(), expected);
        let flags = FdFlags { bit_rate_switch: true, error_state: false };
        let raw = RawFrame::from(&CanFrame::new_fd(id, flags, &[7; 64]).unwrap());
        assert_eq!(raw.as_bytes()[4..9], [64, 1, 0, 0, 7]);
        assert_eq!(raw.as_bytes().len(), 72);
    }

    #[test]
    fn flags_that_only_the_kernel_uses_are_masked() {
        let id = CanId::standard(0x123).unwrap();
        let flags = FdFlags { bit_rate_switch: true, error_state: false };
        let frame = CanFrame::new_fd(id, flags, &[1]).unwrap();
        let mut bytes = RawFrame::from(&frame).as_bytes().to_vec();
        bytes[5] |= 0x04;
        assert_eq!(parse(&bytes), Some(frame));
    }

    #[test]
    fn an_error_frame_keeps_its_classes_and_detail() {
        let mut bytes = 0x2000_0044_u32.to_ne_bytes().to_vec();
        bytes.extend([8, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 128, 1]);
        let frame = parse(&bytes).unwrap();
        assert_eq!(frame.kind(), FrameKind::Error { classes: 0x44 });
        assert_eq!(frame.data(), [0, 0x20, 0, 0, 0, 0, 128, 1]);
    }

    proptest! {
        #[test]
        fn every_frame_survives_encoding_and_decoding(
            raw in any::<u32>(),
            len in 0..=8_usize,
            kind in 0..3_u8,
            fill in any::<u8>(),
        ) {
            let id = if raw & 1 == 0 { CanId::extended_truncated(raw) } else { CanId::standard_truncated(raw) };
            let data = vec![fill; len];
            let frame = match kind {
                0 => CanFrame::new(id, &data),
                1 => CanFrame::new_remote(id, len),
                _ => CanFrame::new_fd(id, FdFlags { bit_rate_switch: fill & 1 == 1, error_state: fill & 2 == 2 }, &data),
            }.unwrap();
            prop_assert_eq!(parse(RawFrame::from(&frame).as_bytes()), Some(frame));
        }

        #[test]
        fn no_bytes_panic_the_frame_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
