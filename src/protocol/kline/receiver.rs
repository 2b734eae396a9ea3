//! Finding the messages to the tester among bytes of noise.

use std::collections::VecDeque;

use super::event::ReceiveFailure;
use super::heard::Heard;
use super::message::{Message, MessageError, begins_message_to, parse};
use crate::protocol::uds::{POSITIVE_OFFSET, is_response_to};

/// Length of the shortest message: format byte, service, checksum. Fewer bytes are noise.
const MIN_MESSAGE: usize = 3;
/// Longest noise around a message without addresses, in bytes. A longer one leaves too many ways to read
/// the bytes.
const MAX_NOISE: usize = 2;
/// Most bytes that are kept: two of the longest messages.
const MAX_BYTES: usize = 520;

/// Bytes that belong to no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) failure: ReceiveFailure,
    pub(super) heard: Heard,
}

/// Reads the messages to a tester from the bytes on the line.
///
/// The first bytes after a silence may be a message of any form. If they form no message, the receiver looks behind
/// them for a message to the tester that contains both addresses: two addresses and a checksum hardly match by
/// accident.
#[derive(Debug)]
pub(super) struct Receiver {
    tester: u8,
    /// The bytes since the last message or silence.
    bytes: Vec<u8>,
    /// Start of the bytes that may still become a message.
    start: usize,
    /// Why the bytes before `start` are no message.
    error: Option<MessageError>,
    results: VecDeque<Result<Message, Lost>>,
}

/// Returns whether a message without addresses is the answer of an ECU: bit 6 of its service is set
/// (ISO 14230-3, 5.2). Addresses are evidence enough.
fn is_plausible(message: &Message) -> bool {
    message.addresses.is_some() || message.data.first().is_some_and(|service| service & POSITIVE_OFFSET != 0)
}

impl Receiver {
    pub(super) fn new(tester: u8) -> Self {
        Self { tester, bytes: Vec::new(), start: 0, error: None, results: VecDeque::new() }
    }

    /// Discards all bytes.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.results.clear();
    }

    /// Returns whether no message has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes a byte.
    pub(super) fn push(&mut self, byte: u8) {
        if self.bytes.len() >= MAX_BYTES {
            self.report_lost(self.bytes.len());
            self.clear();
        }
        self.bytes.push(byte);
        if self.start == 0 {
            self.read_first();
        } else {
            self.read_behind();
        }
    }

    /// The line is silent: takes the messages that are left. `service` is the service of the request.
    pub(super) fn handle_silence(&mut self, service: u8) {
        while !self.bytes.is_empty() && self.start < self.bytes.len() {
            self.start += 1;
            self.read_behind();
        }
        let first = parse(&self.bytes).ok().flatten().map(|(message, _)| message).filter(is_plausible);
        if let Some(message) = first.or_else(|| self.without_addresses(service)) {
            self.results.push_back(Ok(message));
        } else {
            self.report_lost(self.bytes.len());
        }
        self.clear();
    }

    /// Returns the next message, or bytes that belong to none.
    pub(super) fn poll(&mut self) -> Option<Result<Message, Lost>> {
        self.results.pop_front()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.error = None;
    }

    fn behind(&self, start: usize) -> &[u8] {
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Reads the first message after a silence or another message, or a message behind noise.
    fn read_first(&mut self) {
        match parse(&self.bytes) {
            Ok(Some((message, len))) if is_plausible(&message) => {
                let is_for_us = message.target() == Some(self.tester);
                match self.begun_behind_noise().filter(|_| !is_for_us) {
                    Some(start) => self.start = start,
                    None => self.take(0, message, len),
                }
            }
            Ok(None) if begins_message_to(self.tester, &self.bytes) => {}
            Ok(None) => {
                // a message that has begun may contain bytes that look like another one
                let begins = |start: &usize| begins_message_to(self.tester, self.behind(*start));
                let begun =
                    (1..self.bytes.len()).filter(begins).find(|start| parse(self.behind(*start)).is_ok());
                if let Some((start, message, len)) = begun.and_then(|start| self.message_at(start)) {
                    self.take(start, message, len);
                }
            }
            not_a_message => {
                self.error = not_a_message.err();
                self.start = 1;
                self.read_behind();
            }
        }
    }

    /// Returns the start of a message to the tester that has begun behind little noise. It is likelier than a
    /// message to another node, or one without addresses, that noise and its first bytes make.
    fn begun_behind_noise(&self) -> Option<usize> {
        (1..=MAX_NOISE).find(|start| {
            let bytes = self.behind(*start);
            bytes.len() >= 2 && begins_message_to(self.tester, bytes) && matches!(parse(bytes), Ok(None))
        })
    }

    /// Reads the messages to the tester at `start` and behind.
    fn read_behind(&mut self) {
        while self.start < self.bytes.len() {
            let rest = self.behind(self.start);
            let is_incomplete = begins_message_to(self.tester, rest) && matches!(parse(rest), Ok(None));
            if is_incomplete {
                return;
            }
            match self.message_at(self.start) {
                Some((start, message, len)) => self.take(start, message, len),
                None => self.start += 1,
            }
        }
    }

    /// Returns the complete message to the tester at `start`, with its addresses.
    fn message_at(&self, start: usize) -> Option<(usize, Message, usize)> {
        let bytes = self.behind(start);
        if !begins_message_to(self.tester, bytes) {
            return None;
        }
        let (message, len) = parse(bytes).ok().flatten()?;
        Some((start, message, len))
    }

    /// Takes a message, and reports the bytes before it if they are more than noise.
    fn take(&mut self, start: usize, message: Message, len: usize) {
        self.report_lost(start);
        self.results.push_back(Ok(message));
        self.bytes.drain(..(start + len).min(self.bytes.len()));
        self.start = 0;
        self.error = None;
    }

    fn report_lost(&mut self, count: usize) {
        if count < MIN_MESSAGE {
            return;
        }
        let failure = self.error.map_or(ReceiveFailure::Incomplete, ReceiveFailure::Message);
        let heard = Heard::new(self.bytes.get(..count).unwrap_or_default());
        self.results.push_back(Err(Lost { failure, heard }));
    }

    /// Returns the message without addresses that the received bytes contain, if it is an answer to `service` and the
    /// line carried nothing else but a little noise around it.
    fn without_addresses(&self, service: u8) -> Option<Message> {
        (1..=MAX_NOISE).find_map(|noise| {
            let bytes = self.behind(noise);
            let (message, len) = parse(bytes).ok().flatten()?;
            let is_answer = message.addresses.is_none() && is_response_to(service, &message.data);
            (is_answer && noise + bytes.len() - len <= MAX_NOISE).then_some(message)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::kline::message::{AddressMode, HeaderForm, LengthForm, encode};

    const TESTER: u8 = 0xF1;
    const READ: u8 = 0x1A;

    fn answer(mode: Option<AddressMode>, data: &[u8]) -> Vec<u8> {
        encode(HeaderForm { mode, length: LengthForm::Either }, TESTER, 0x11, data).unwrap()
    }

    fn addressed(data: &[u8]) -> Vec<u8> {
        answer(Some(AddressMode::Physical), data)
    }

    /// The data of the messages, and the number of other results, after the line has fallen silent.
    fn receive(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let mut receiver = Receiver::new(TESTER);
        bytes.iter().for_each(|byte| receiver.push(*byte));
        receiver.handle_silence(READ);
        let results: Vec<_> = std::iter::from_fn(|| receiver.poll()).collect();
        let lost = results.iter().filter(|result| result.is_err()).count();
        (results.into_iter().flatten().map(|message| message.data).collect(), lost)
    }

    #[test]
    fn a_message_behind_noise_is_complete_with_its_last_byte() {
        for noise in 0..=0xFF {
            let mut receiver = Receiver::new(TESTER);
            [&[noise][..], &addressed(&[0x5A, 0x90, 1, 2, 3])]
                .concat()
                .iter()
                .for_each(|b| receiver.push(*b));
            let found = receiver.poll().unwrap().unwrap();
            assert_eq!(found.data, [0x5A, 0x90, 1, 2, 3], "0x{noise:02X}");
        }
    }

    #[test]
    fn a_message_without_addresses_behind_noise_is_taken_when_the_line_is_silent() {
        let message = answer(None, &[0x5A, 0x90, 1, 2, 3]);
        for noise in [&[0x00][..], &[0x48], &[0xFF], &[0x83], &[0x01], &[0x00, 0x00], &[0xC1, 0x05]] {
            let (found, lost) = receive(&[noise, &message].concat());
            assert_eq!((found, lost), (vec![vec![0x5A, 0x90, 1, 2, 3]], 0), "{noise:02X?}");
        }
        // an answer to another request could be part of a disturbed message
        assert_eq!(receive(&[&[0xFF][..], &answer(None, &[0x61, 1])].concat()), (vec![], 1));
    }

    #[test]
    fn a_message_to_another_node_is_read_although_a_part_of_it_could_begin_one_to_us() {
        // a request to the ECU 0xA0, whose bytes from the second on are a header to 0xF1
        let mut receiver = Receiver::new(TESTER);
        [0x81, 0xA0, 0xF1, 0x3E, 0x50].iter().for_each(|byte| receiver.push(*byte));
        assert_eq!(receiver.poll(), None);
        receiver.handle_silence(READ);
        assert_eq!(receiver.poll().unwrap().unwrap().target(), Some(0xA0));
    }

    #[test]
    fn messages_behind_a_disturbed_one_are_found_and_the_loss_is_reported() {
        let (first, second) =
            (addressed(&[0x49, 2, 1, 0, 0, 0, 65]), addressed(&[0x49, 2, 2, 66, 67, 68, 69]));
        let mut wrong = first.clone();
        wrong[8] ^= 0x10;
        let mut short = first.clone();
        short.remove(5);
        for disturbed in [wrong, short, first[..6].to_vec()] {
            let (found, lost) = receive(&[&disturbed[..], &second, &second].concat());
            assert_eq!(found, [[0x49, 2, 2, 66, 67, 68, 69]; 2], "{disturbed:02X?}");
            assert_eq!(lost, 1, "{disturbed:02X?}");
        }
    }

    fn noise() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0x00), Just(0xFF), any::<u8>()], 0..MIN_MESSAGE)
    }

    proptest! {
        #[test]
        fn noise_before_between_and_after_messages_loses_none(
            messages in prop::collection::vec((noise(), prop::collection::vec(any::<u8>(), 0..70)), 1..6),
            after in noise(),
        ) {
            let data = |rest: &[u8]| [&[0x5A][..], rest].concat();
            let mut bytes: Vec<u8> = Vec::new();
            for (noise, rest) in &messages {
                bytes.extend(noise);
                bytes.extend(addressed(&data(rest)));
            }
            bytes.extend(after);
            let sent: Vec<_> = messages.iter().map(|(_, rest)| data(rest)).collect();
            prop_assert_eq!(receive(&bytes), (sent, 0));
        }

        #[test]
        fn any_bytes_use_little_memory_and_end(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut receiver = Receiver::new(TESTER);
            for byte in bytes {
                receiver.push(byte);
                prop_assert!(receiver.bytes.len() <= MAX_BYTES && receiver.start <= receiver.bytes.len());
                while receiver.poll().is_some() {}
            }
            receiver.handle_silence(READ);
            prop_assert!(receiver.is_empty());
        }
    }
}
