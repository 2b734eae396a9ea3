//! The memory in which messages are built: large pieces, each shared by many messages.
//!
//! A piece is used again when all messages in it are discarded. Relaying frames therefore allocates nothing
//! while the peer acknowledges the messages.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The size of a piece, in bytes. A piece holds the records of some 300 frames; a smaller one would be
/// allocated more often, a larger one would waste more memory on a quiet connection.
const PIECE: usize = 16 * 1024;
/// The number of pieces that are kept to be used again: enough for 4,000 frames a second to a peer 500 ms
/// away.
const KEPT_PIECES: usize = 8;

/// Builds messages, one after the other.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// The message that is being built, and the rest of its piece.
    current: BytesMut,
    /// Whether the current memory is a piece that can be used again.
    is_piece: bool,
    /// Pieces without free space, the oldest first.
    used_up: VecDeque<BytesMut>,
}

impl Arena {
    /// The message that is being built.
    pub(super) fn message(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// The length of the message that is being built.
    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    /// Reserves space for `additional` bytes, so that appending them allocates nothing.
    pub(super) fn make_room(&mut self, additional: usize) {
        if self.current.try_reclaim(additional) {
            return;
        }
        let needed = self.current.len() + additional;
        // a piece can be reclaimed when all messages in it are dropped
        let reclaimed = self.used_up.pop_front_if(|piece| needed <= PIECE && piece.try_reclaim(PIECE));
        let mut next = reclaimed.unwrap_or_else(|| BytesMut::with_capacity(needed.max(PIECE)));
        next.extend_from_slice(&self.current);
        self.current.clear();
        let old = std::mem::replace(&mut self.current, next);
        if std::mem::replace(&mut self.is_piece, needed <= PIECE) {
            if self.used_up.len() == KEPT_PIECES {
                self.used_up.pop_front();
            }
            self.used_up.push_back(old);
        }
    }

    /// Returns the finished message, and begins the next one.
    pub(super) fn finish(&mut self) -> Bytes {
        if self.is_piece {
            return self.current.split().freeze();
        }
        // memory that is not a piece is freed with its message
        std::mem::take(&mut self.current).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bytes_when_others_are_dropped() {
        let mut arena = Arena::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut kept: VecDeque<(Bytes, Vec<u8>)> = VecDeque::new();
        for round in 0..20_000_u32 {
            let len = if round % 1000 == 999 { 100_000 } else { random.usize(1..2000) };
            let expected: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            for part in expected.chunks(100) {
                arena.make_room(part.len());
                arena.message().extend_from_slice(part);
            }
            assert_eq!(arena.len(), len);
            kept.push_back((arena.finish(), expected));
            assert_eq!(arena.len(), 0);
            while kept.len() > random.usize(0..200) {
                let (message, expected) = kept.pop_front().unwrap();
                assert_eq!(message, expected);
            }
        }
    }

    #[test]
    fn the_memory_that_is_kept_is_bounded() {
        let mut arena = Arena::default();
        let mut messages = Vec::new();
        for _ in 0..10_000 {
            arena.make_room(1000);
            arena.message().resize(1000, 7);
            messages.push(arena.finish());
        }
        assert!(arena.used_up.len() <= KEPT_PIECES);
        arena.make_room(1 << 20);
        arena.message().resize(1 << 20, 7);
        assert_eq!(arena.finish().len(), 1 << 20);
        assert_eq!(arena.current.capacity(), 0, "a large message's memory goes with it");
    }
}
