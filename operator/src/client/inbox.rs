//! The items that a channel received and that have not been taken yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, Payload};
use connector_hal::can::CanFrame;
use tokio::sync::Notify;

use super::error::CloseReason;

/// How much may wait on a channel, in bytes. Further frames are dropped and reported as a gap. A PDU without
/// room ends the connection, as on the connector's side. Four times what the connector keeps: a program on a
/// computer has more memory.
const LIMIT: usize = 8 << 20;
/// The size that an item counts in addition to its data: the item itself, and the overhead of its allocation.
const ITEM_COST: usize = 128;

/// A PDU or frame from the vehicle, or an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A whole PDU.
    Pdu {
        /// The sender: a CAN identifier with SocketCAN's EFF bit.
        address: u32,
        /// The bytes of the PDU.
        data: Vec<u8>,
    },
    /// A frame, as it was on the bus.
    Frame(CanFrame),
    /// An event.
    Event {
        /// The kind of event.
        code: EventCode,
        /// A detail, whose meaning depends on the kind.
        detail: u16,
        /// A number, whose meaning depends on the kind.
        value: u32,
        /// A description for people.
        text: String,
    },
    /// Terminal 15, the ignition: on, off, or unknown.
    Terminal15(Option<bool>),
}

/// An item with its time on the bus, on the connector's clock, since the connection was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The time.
    pub at: Duration,
    /// The item.
    pub item: Item,
}

impl Item {
    /// The item in a record, or `None` if this program does not know the kind of record.
    pub(super) fn of(payload: &Payload<'_>) -> Option<Self> {
        Some(match *payload {
            Payload::Pdu { address, data, .. } => Self::Pdu { address, data: data.to_vec() },
            Payload::Frame(frame) => Self::Frame(frame),
            Payload::Event { code, detail, value, text } => {
                Self::Event { code, detail, value, text: text.to_owned() }
            }
            Payload::Terminal15 { on } => Self::Terminal15(on),
            Payload::Clock { .. } | Payload::Unknown { .. } => return None,
        })
    }

    fn cost(&self) -> usize {
        ITEM_COST
            + match self {
                Self::Pdu { data, .. } => data.len(),
                Self::Event { text, .. } => text.len(),
                Self::Frame(_) | Self::Terminal15(_) => 0,
            }
    }
}

/// A PDU has no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
struct InboxState {
    items: VecDeque<Received>,
    bytes: usize,
    /// How many frames were dropped since the last item, and the time of the last one.
    dropped: u32,
    dropped_at: Duration,
    closed: Option<CloseReason>,
}

/// The queue between the task of a connection and one channel.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    news: Notify,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, received: Received) -> Result<(), Full> {
        let mut state = self.state();
        let cost = received.item.cost();
        if state.bytes + cost > LIMIT {
            if !matches!(received.item, Item::Frame(_)) {
                return Err(Full);
            }
            state.dropped = state.dropped.saturating_add(1);
            state.dropped_at = received.at;
        } else {
            state.report_gap();
            state.bytes += cost;
            state.items.push_back(received);
        }
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// Ends the inbox. The items in it can still be taken.
    pub(super) fn close(&self, reason: &CloseReason) {
        self.state().closed.get_or_insert_with(|| reason.clone());
        self.news.notify_one();
    }

    /// The next item; cancel-safe.
    pub(super) async fn recv(&self) -> Result<Received, CloseReason> {
        loop {
            if let Some(next) = self.try_recv() {
                return next;
            }
            self.news.notified().await;
        }
    }

    /// The next item if there is one, or the reason why no item will come.
    pub(super) fn try_recv(&self) -> Option<Result<Received, CloseReason>> {
        let mut state = self.state();
        if state.items.is_empty() {
            state.report_gap();
        }
        if let Some(next) = state.items.pop_front() {
            state.bytes = state.bytes.saturating_sub(next.item.cost());
            return Some(Ok(next));
        }
        let closed = state.closed.clone()?;
        // another waiting receiver learns the reason too
        self.news.notify_one();
        Some(Err(closed))
    }
}

impl InboxState {
    fn report_gap(&mut self) {
        if self.dropped > 0 {
            let value = std::mem::take(&mut self.dropped);
            let item = Item::Event { code: EventCode::Gap, detail: 0, value, text: String::new() };
            self.bytes += item.cost();
            self.items.push_back(Received { at: self.dropped_at, item });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_hal::can::CanId;

    fn frame(at: u64) -> Received {
        let frame = CanFrame::new(CanId::standard(0x100).unwrap(), &[]).unwrap();
        Received { at: Duration::from_micros(at), item: Item::Frame(frame) }
    }

    fn pdu(len: usize) -> Received {
        Received { at: Duration::ZERO, item: Item::Pdu { address: 0, data: vec![0; len] } }
    }

    #[test]
    fn frames_without_room_become_a_gap_in_their_place() {
        let inbox = Inbox::default();
        let fit = LIMIT / ITEM_COST;
        for at in 0..fit + 3 {
            assert_eq!(inbox.push(frame(at as u64)), Ok(()));
        }
        for at in 0..fit {
            assert_eq!(inbox.try_recv(), Some(Ok(frame(at as u64))));
        }
        let gap = Item::Event { code: EventCode::Gap, detail: 0, value: 3, text: String::new() };
        let at = Duration::from_micros(fit as u64 + 2);
        assert_eq!(inbox.try_recv(), Some(Ok(Received { at, item: gap })));
        assert_eq!(inbox.try_recv(), None);
    }

    #[test]
    fn a_pdu_without_room_is_refused_and_nothing_before_it_is_lost() {
        let inbox = Inbox::default();
        assert_eq!(inbox.push(pdu(LIMIT - ITEM_COST)), Ok(()));
        assert_eq!(inbox.push(pdu(1)), Err(Full));
        assert_eq!(inbox.try_recv(), Some(Ok(pdu(LIMIT - ITEM_COST))));
        assert_eq!(inbox.push(pdu(1)), Ok(()));
    }

    #[tokio::test]
    async fn items_received_before_the_end_are_still_delivered() {
        let inbox = Inbox::default();
        inbox.push(pdu(1)).unwrap();
        inbox.close(&CloseReason::LinkLost);
        assert_eq!(inbox.recv().await, Ok(pdu(1)));
        assert_eq!(inbox.recv().await, Err(CloseReason::LinkLost));
        assert_eq!(inbox.recv().await, Err(CloseReason::LinkLost));
    }
}
