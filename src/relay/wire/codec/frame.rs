//! The payload of a frame record: identifier with SocketCAN's flags, FD bits, data.

use bytes::BufMut;
use connector_hal::can::{CanFrame, CanId, FdFlags, FrameKind};

use super::reader::Reader;

const RTR_FLAG: u32 = 0x4000_0000;
const ERR_FLAG: u32 = 0x2000_0000;
const FD_BRS: u8 = 1;
const FD_ESI: u8 = 2;
const FD_FDF: u8 = 4;

/// Appends a frame record's payload.
pub(super) fn encode_frame(frame: &CanFrame, out: &mut impl BufMut) {
    let (identifier, fd) = match frame.kind() {
        FrameKind::Data => (frame.id().to_socketcan(), 0),
        FrameKind::Remote => (frame.id().to_socketcan() | RTR_FLAG, 0),
        FrameKind::Error { classes } => (classes | ERR_FLAG, 0),
        FrameKind::Fd(flags) => {
            let brs = if flags.bit_rate_switch { FD_BRS } else { 0 };
            let esi = if flags.error_state { FD_ESI } else { 0 };
            (frame.id().to_socketcan(), FD_FDF | brs | esi)
        }
    };
    out.put_u32(identifier);
    out.put_u8(fd);
    match frame.kind() {
        FrameKind::Remote => out.put_bytes(0, frame.len()),
        _ => out.put_slice(frame.data()),
    }
}

/// Reads a frame record's payload; the error says what is wrong with it.
pub(super) fn decode_frame(payload: &[u8]) -> Result<CanFrame, &'static str> {
    let mut reader = Reader::new(payload);
    let identifier = reader.u32().ok_or("a frame record without identifier")?;
    let fd = reader.u8().ok_or("a frame record without FD bits")?;
    let data = reader.rest();
    if identifier & ERR_FLAG != 0 {
        let mut detail = [0; 8];
        if data.len() > detail.len() {
            return Err("an error frame has at most 8 bytes");
        }
        detail.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        return Ok(CanFrame::new_error(identifier & 0x1FFF_FFFF, detail));
    }
    let id = CanId::try_from(identifier & !RTR_FLAG).map_err(|_| "an identifier above 29 bits")?;
    if fd & FD_FDF != 0 {
        if identifier & RTR_FLAG != 0 {
            return Err("CAN FD has no remote frames");
        }
        let flags = FdFlags { bit_rate_switch: fd & FD_BRS != 0, error_state: fd & FD_ESI != 0 };
        return CanFrame::new_fd(id, flags, data).map_err(|_| "a length that no CAN FD frame has");
    }
    if identifier & RTR_FLAG != 0 {
        return CanFrame::new_remote(id, data.len()).map_err(|_| "a remote frame asks for at most 8 bytes");
    }
    CanFrame::new(id, data).map_err(|_| "a classic frame has at most 8 bytes")
}
