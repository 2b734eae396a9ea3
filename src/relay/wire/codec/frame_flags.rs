//! The flags of a frame record: those of its identifier are SocketCAN's, those of CAN FD come from the relay
//! protocol.

pub(super) const RTR_FLAG: u32 = 0x4000_0000;
pub(super) const ERR_FLAG: u32 = 0x2000_0000;
pub(super) const FD_BRS: u8 = 1;
pub(super) const FD_ESI: u8 = 2;
pub(super) const FD_FDF: u8 = 4;
