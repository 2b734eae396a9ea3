//! What waits in the websocket library's buffer: how much, and whether a Ping is among it.

use super::settings::MAX_UNSENT;

/// The header of a frame with a mask (RFC 6455, 5.2), at most.
const FRAME_HEADER: usize = 14;

/// The messages that the library was given since its buffer was last empty.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    needs_flush: bool,
    bytes: usize,
    has_ping: bool,
    /// How many bytes the transport had taken at the last look.
    written: u64,
}

impl Unsent {
    /// The library was given a message whose number needs no bound.
    pub(super) fn handle_queued(&mut self) {
        self.needs_flush = true;
    }

    /// The library was given a text, or a Ping to answer, of this many bytes.
    pub(super) fn handle_bounded(&mut self, len: usize) {
        self.needs_flush = true;
        self.bytes += len + FRAME_HEADER;
    }

    /// The library was given a Ping.
    pub(super) fn handle_ping_queued(&mut self) {
        self.needs_flush = true;
        self.has_ping = true;
    }

    /// The transport has taken this many bytes since the websocket opened. Returns whether that is more than before.
    pub(super) fn handle_written(&mut self, written: u64) -> bool {
        std::mem::replace(&mut self.written, written) != written
    }

    /// The transport has taken everything.
    pub(super) fn handle_flushed(&mut self) {
        *self = Self { written: self.written, ..Self::default() };
    }

    /// Whether the library's buffer is empty.
    pub(super) fn is_empty(&self) -> bool {
        !self.needs_flush
    }

    /// Whether the bound leaves room for another message.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < MAX_UNSENT
    }

    /// Whether a Ping may wait in the buffer, so that the cloud's silence means nothing.
    pub(super) fn has_ping(&self) -> bool {
        self.has_ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_the_cloud_does_not_take_has_no_room_until_it_is_flushed() {
        let mut unsent = Unsent::default();
        while unsent.has_room() {
            unsent.handle_bounded(125);
        }
        assert!(unsent.bytes < MAX_UNSENT + 125 + FRAME_HEADER);
        assert!(unsent.handle_written(10) && !unsent.handle_written(10));
        unsent.handle_flushed();
        assert!(unsent.has_room() && unsent.is_empty() && !unsent.handle_written(10));
    }

    #[test]
    fn empty_pongs_have_no_room_without_end() {
        let mut unsent = Unsent::default();
        for _ in 0..=MAX_UNSENT / FRAME_HEADER {
            unsent.handle_bounded(0);
        }
        assert!(!unsent.has_room());
    }
}
