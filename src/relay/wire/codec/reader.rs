//! Reading integers and headers off a message.

use super::{Header, Tag};

/// Takes big-endian integers off a slice; `None` where it is too short.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn header(&mut self) -> Option<(u8, Header)> {
        let [version, _reserved] = self.array()?;
        let record_count = self.u16()?;
        let tag = Tag(self.array()?);
        let seq = self.u32()?;
        let ack = self.u32()?;
        let time = self.array().map(u64::from_be_bytes)?;
        Some((version, Header { record_count, tag, seq, ack, time }))
    }

    pub(super) fn record_header(&mut self) -> Option<(u8, u8, u16, i32, u32)> {
        let [kind, flags] = self.array()?;
        let channel = self.u16()?;
        let offset = self.array().map(i32::from_be_bytes)?;
        let length = self.u32()?;
        Some((kind, flags, channel, offset, length))
    }
}
