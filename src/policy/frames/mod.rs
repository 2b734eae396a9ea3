//! The policy for raw frames. Each frame is decoded as the ECUs that receive its identifier decode it, so that a
//! request in a raw frame is judged like a request on a channel.

mod channel;
mod identifiers;
mod isotp;
mod tp20;

use std::collections::HashMap;

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::isotp::NPdu;

use super::services::is_response;

pub(super) use self::channel::{ChannelFrame, ChannelFrames};
use self::identifiers::Addressing;
use self::isotp::Receivers;

/// The most identifiers that are watched. The state of the least recently used one is forgotten: its consecutive frames
/// are refused until the next first frame.
const MAX_WATCHED: usize = 256;

/// The meaning of a frame for one kind of receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameMeaning<'a> {
    /// The beginning of a request.
    Request {
        /// The receiver's address byte, with extended addressing.
        extended: Option<u8>,
        /// The first bytes of the request.
        data: &'a [u8],
        /// Whether further bytes follow.
        is_start: bool,
    },
    /// A frame that is no diagnostic message.
    Bus,
    /// The continuation of a request that was allowed, or a frame without a request, such as flow control.
    Harmless,
    /// The continuation of a request whose first frame was not allowed.
    NoFirstFrame,
}

/// All meanings of a frame. The frame may be sent only if each of them is allowed.
pub(super) type FrameMeanings<'a> = [Option<FrameMeaning<'a>>; 3];

#[derive(Debug)]
struct Watched {
    addressing: Addressing,
    receivers: Receivers,
    used: u64,
}

/// The watchers of all buses and identifiers.
#[derive(Debug)]
pub(super) struct Frames {
    watched: HashMap<(usize, CanId), Watched>,
    channels: tp20::RawTp20Channels,
    diagnostic_ids: Vec<u32>,
    /// Counts frames.
    clock: u64,
}

impl Frames {
    /// `diagnostic_ids` are identifiers of diagnostics besides those of the standards.
    pub(super) fn new(diagnostic_ids: Vec<u32>) -> Self {
        let watched = HashMap::with_capacity(MAX_WATCHED);
        Self { watched, channels: tp20::RawTp20Channels::default(), diagnostic_ids, clock: 0 }
    }

    /// Whether the identifier is one of diagnostics.
    pub(super) fn is_diagnostic(&self, id: CanId) -> bool {
        identifiers::is_diagnostic(id) || self.diagnostic_ids.contains(&id.raw())
    }

    /// Returns what the frame asks for.
    pub(super) fn meanings<'a>(&self, bus: usize, frame: &'a CanFrame) -> FrameMeanings<'a> {
        if !frame.is_data() {
            return [Some(FrameMeaning::Bus), None, None];
        }
        match self.channels.meaning(bus, frame) {
            Some(tp20::Tp20Meaning::Request { data, is_start }) => {
                return [Some(FrameMeaning::Request { extended: None, data, is_start }), None, None];
            }
            Some(tp20::Tp20Meaning::Harmless) => return [Some(FrameMeaning::Harmless), None, None],
            Some(tp20::Tp20Meaning::OutOfSequence) => return [Some(FrameMeaning::NoFirstFrame), None, None],
            None => {}
        }
        let empty = Receivers::default();
        let watched = self.watched.get(&(bus, frame.id()));
        let receivers = watched.map_or(&empty, |watched| &watched.receivers);
        let addressing =
            watched.map_or_else(|| identifiers::addressing(frame.id()), |watched| watched.addressing);
        let read = isotp::addresses(addressing, frame.data())
            .map(|address| address.map(|address| (address, receivers.meaning(address, frame.data()))));
        self.combine(frame.id(), read)
    }

    fn combine<'a>(
        &self,
        id: CanId,
        read: [Option<(isotp::Address, isotp::IsotpMeaning<'a>)>; 2],
    ) -> FrameMeanings<'a> {
        let diagnostics = read.map(|read| match read {
            Some((address, isotp::IsotpMeaning::Request { data, is_start })) => {
                Some(FrameMeaning::Request { extended: address.byte(), data, is_start })
            }
            Some((_, isotp::IsotpMeaning::Refused)) => Some(FrameMeaning::NoFirstFrame),
            Some((_, isotp::IsotpMeaning::Continued | isotp::IsotpMeaning::FlowControl)) => {
                Some(FrameMeaning::Harmless)
            }
            _ => None,
        });
        let is =
            |wanted: isotp::IsotpMeaning<'_>| read.iter().flatten().any(|(_, meaning)| *meaning == wanted);
        // a frame that looks like no ISO-TP at the place where most ECUs expect the N_PCI may be of another protocol
        let is_other = matches!(
            read,
            [Some((_, isotp::IsotpMeaning::Other)), _] | [None, Some((_, isotp::IsotpMeaning::Other))]
        );
        let [first, second] = diagnostics;
        let third = match (self.is_diagnostic(id), first.is_none() && second.is_none()) {
            (false, _) => Some(FrameMeaning::Bus),
            (true, true) if is(isotp::IsotpMeaning::Unstarted) => Some(FrameMeaning::NoFirstFrame),
            (true, true) => Some(FrameMeaning::Bus),
            (true, false) => is_other.then_some(FrameMeaning::Bus),
        };
        [first, second, third]
    }

    /// Handles a frame of the operator that was let through, or refused.
    pub(super) fn handle_frame(&mut self, bus: usize, frame: &CanFrame, is_allowed: bool) {
        if !frame.is_data() {
            return;
        }
        if is_allowed {
            self.channels.handle_sent(bus, frame);
        }
        self.clock += 1;
        let watched = self.watched(bus, frame.id());
        for address in isotp::addresses(watched.addressing, frame.data()).into_iter().flatten() {
            watched.receivers.handle_frame(address, frame.data(), is_allowed);
        }
    }

    /// Handles a frame that was lost after it was handled as sent.
    pub(super) fn handle_lost(&mut self, bus: usize, id: CanId) {
        self.channels.handle_lost(bus, id);
        if let Some(watched) = self.watched.get_mut(&(bus, id)) {
            watched.receivers.handle_lost();
        }
    }

    /// Handles a PDU of a channel: its response shows the form of addressing.
    pub(super) fn handle_pdu(&mut self, bus: usize, id: CanId) {
        self.clock += 1;
        self.watched(bus, id);
    }

    /// Whether ECUs may read the frames of an ISO-TP channel with the other form of addressing than the channel's own.
    pub(super) fn may_have_other_form(&self, bus: usize, id: CanId, extended: Option<u8>) -> bool {
        let watched = self.watched.get(&(bus, id));
        let addressing = if identifiers::is_obd(id) {
            Addressing::Normal
        } else {
            watched.map_or_else(|| identifiers::addressing(id), |watched| watched.addressing)
        };
        match extended {
            None => addressing != Addressing::Normal,
            // as an N_PCI, the address has to begin a single or first frame
            Some(address) => addressing != Addressing::Extended && address < 0x20,
        }
    }

    fn watched(&mut self, bus: usize, id: CanId) -> &mut Watched {
        let key = (bus, id);
        if self.watched.len() >= MAX_WATCHED && !self.watched.contains_key(&key) {
            let oldest = self.watched.iter().min_by_key(|(_, watched)| watched.used).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.watched.remove(&oldest);
            }
        }
        let used = self.clock;
        let watched = self.watched.entry(key).or_insert_with(|| Watched {
            addressing: identifiers::addressing(id),
            receivers: Receivers::default(),
            used,
        });
        watched.used = used;
        watched
    }

    /// Handles a frame that was heard on the bus. The response to a request shows the form of addressing, for good.
    pub(super) fn handle_heard(&mut self, bus: usize, frame: &CanFrame) {
        if !frame.is_data() {
            return;
        }
        self.channels.handle_heard(bus, frame);
        let Some(request) = identifiers::request_of(frame.id()) else { return };
        let Some(watched) = self.watched.get_mut(&(bus, request)) else { return };
        if watched.addressing == Addressing::Either
            && let Some(addressing) = shown_addressing(frame.data())
        {
            watched.addressing = addressing;
        }
    }

    /// Forgets everything: the connection is closed.
    pub(super) fn clear(&mut self) {
        self.watched.clear();
        self.channels.clear();
    }
}

/// The form of addressing of a response, if only one form makes sense.
fn shown_addressing(data: &[u8]) -> Option<Addressing> {
    let fits = |address_bytes: usize| match NPdu::decode(data, address_bytes) {
        Ok(NPdu::SingleFrame { data } | NPdu::FirstFrame { data, .. }) => {
            data.first().is_some_and(|first| is_response(*first))
        }
        Ok(NPdu::FlowControl { .. }) => true,
        _ => false,
    };
    match (fits(0), fits(1)) {
        (true, false) => Some(Addressing::Normal),
        (false, true) => Some(Addressing::Extended),
        _ => None,
    }
}
