//! A tester's channel and an ECU's side of it, on a bus in virtual time that loses the selected frames.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::tp20::{
    Channel, ChannelConfig, Connection, ConnectionConfig, Event, Opening, Parameters, SETUP_ID, SetupMessage,
    SetupOpcode, Tpdu,
};

/// The time of a frame on the bus.
pub(super) const FRAME_TIME: Duration = Duration::from_micros(250);
/// The identifier on which the ECU listens.
pub(super) const ECU_LISTENS: CanId = CanId::standard_truncated(0x740);

/// The side that sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Tester,
    Ecu,
}

/// Decides whether a frame is lost.
pub(super) type Loss = Box<dyn FnMut(Side, &CanFrame) -> bool>;

/// The ECU's answer to a set-up request, if there is one.
pub(super) type Answer = Box<dyn FnMut(&SetupMessage) -> Option<SetupMessage>>;

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) channel: Channel,
    pub(super) ecu: Option<Connection>,
    /// The ECU's parameters.
    pub(super) ecu_parameters: Parameters,
    /// Answers the set-up requests.
    pub(super) setup: Answer,
    pub(super) loses: Loss,
    pub(super) tester_events: Vec<Event>,
    pub(super) ecu_events: Vec<Event>,
    /// All frames that were on the bus, with their times.
    pub(super) log: Vec<(Instant, Side, CanFrame)>,
    from_ecu: VecDeque<CanFrame>,
    turn: Side,
}

impl Pair {
    pub(super) fn new(ecu_parameters: Parameters) -> Self {
        Self::with(ChannelConfig::new(1.try_into().unwrap(), 0), ecu_parameters)
    }

    pub(super) fn with(config: ChannelConfig, ecu_parameters: Parameters) -> Self {
        Self {
            now: Instant::now(),
            channel: Channel::new(config),
            ecu: None,
            ecu_parameters,
            setup: Box::new(|request| Some(positive(request))),
            loses: Box::new(|_, _| false),
            tester_events: Vec::new(),
            ecu_events: Vec::new(),
            log: Vec::new(),
            from_ecu: VecDeque::new(),
            turn: Side::Tester,
        }
    }

    /// A pair whose channel is open.
    pub(super) fn open(ecu_parameters: Parameters) -> Self {
        let mut pair = Self::new(ecu_parameters);
        pair.channel.open();
        pair.run_for(Duration::from_millis(50));
        assert_eq!(std::mem::take(&mut pair.tester_events), [Event::Opened]);
        pair.ecu_events.clear();
        pair
    }

    pub(super) fn ecu(&mut self) -> &mut Connection {
        self.ecu.as_mut().unwrap()
    }

    /// The frames that one side sent.
    pub(super) fn sent_by(&self, side: Side) -> Vec<String> {
        let of_side = self.log.iter().filter(|(_, from, _)| *from == side);
        of_side.map(|(_, _, frame)| frame.to_string()).collect()
    }

    /// Sends a frame from the ECU that the ECU's side of the connection does not know.
    pub(super) fn inject(&mut self, id: u32, data: &[u8]) {
        self.from_ecu.push_back(CanFrame::new(CanId::standard_truncated(id), data).unwrap());
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(until);
        }
    }

    /// Carries one frame, or advances to the next deadline.
    fn step(&mut self, until: Instant) {
        let now = self.now;
        let next = match self.turn {
            Side::Tester => self.poll(Side::Tester).or_else(|| self.poll(Side::Ecu)),
            Side::Ecu => self.poll(Side::Ecu).or_else(|| self.poll(Side::Tester)),
        };
        if let Some((side, frame, is_injected)) = next {
            self.turn = if side == Side::Tester { Side::Ecu } else { Side::Tester };
            self.now += FRAME_TIME;
            self.deliver(side, frame, is_injected);
        } else {
            let channel = self.channel.poll_timeout().map(|(at, _)| at);
            let ecu = self.ecu.as_ref().and_then(Connection::poll_timeout).map(|(at, _)| at);
            let next = channel.into_iter().chain(ecu).min().unwrap_or(until);
            self.now = next.clamp(now, until);
            if next <= self.now {
                self.channel.handle_timeout(self.now);
                if let Some(ecu) = &mut self.ecu {
                    ecu.handle_timeout(self.now);
                }
            }
        }
        self.collect();
    }

    fn poll(&mut self, side: Side) -> Option<(Side, CanFrame, bool)> {
        match side {
            Side::Tester => self.channel.poll_transmit(self.now).map(|frame| (side, frame, false)),
            Side::Ecu => self
                .from_ecu
                .pop_front()
                .map(|frame| (side, frame, true))
                .or_else(|| self.ecu.as_mut()?.poll_transmit(self.now).map(|frame| (side, frame, false))),
        }
    }

    fn deliver(&mut self, side: Side, frame: CanFrame, is_injected: bool) {
        self.log.push((self.now, side, frame));
        let is_lost = (self.loses)(side, &frame);
        match side {
            Side::Tester => {
                self.channel.handle_transmitted(self.now);
                if !is_lost {
                    self.ecu_hears(&frame);
                }
            }
            Side::Ecu => {
                if !is_injected && let Some(ecu) = &mut self.ecu {
                    ecu.handle_transmitted(self.now);
                }
                if !is_lost {
                    self.channel.handle_frame(self.now, &frame);
                }
            }
        }
    }

    fn ecu_hears(&mut self, frame: &CanFrame) {
        if frame.id() != SETUP_ID {
            if let Some(ecu) = &mut self.ecu {
                ecu.handle_frame(self.now, frame);
            }
            return;
        }
        let request = SetupMessage::decode(frame.data()).unwrap();
        let Some(answer) = (self.setup)(&request) else { return };
        let id = self.channel.config().ecu.setup_response_id();
        self.from_ecu.push_back(answer.encode(id).unwrap());
        if let (SetupOpcode::Positive, Some(listens)) = (answer.opcode, answer.transmit) {
            let config = ConnectionConfig {
                transmit: answer.receive.or(request.transmit).unwrap(),
                receive: listens,
                parameters: self.ecu_parameters,
                opening: Opening::Passive(Duration::from_secs(1)),
                test_after: None,
                silence_limit: Some(Duration::from_millis(1200)),
                max_pdu: 0x7FFF,
            };
            self.ecu = Some(Connection::new(config, self.now));
        }
    }

    fn collect(&mut self) {
        self.tester_events.extend(std::iter::from_fn(|| self.channel.poll_event()));
        if let Some(ecu) = &mut self.ecu {
            self.ecu_events.extend(std::iter::from_fn(|| ecu.poll_event()));
        }
    }
}

/// The positive answer of most ECUs: the ECU accepts the tester's identifier and names its own.
pub(super) fn positive(request: &SetupMessage) -> SetupMessage {
    SetupMessage {
        destination: 0,
        opcode: SetupOpcode::Positive,
        receive: request.transmit,
        transmit: Some(ECU_LISTENS),
        application_type: request.application_type,
    }
}

/// The sequence number of a data frame.
pub(super) fn data_number(frame: &CanFrame) -> Option<u8> {
    match Tpdu::decode(frame.data()) {
        Ok(Tpdu::Data { sequence, .. }) if frame.id().raw() >= 0x300 => Some(sequence),
        _ => None,
    }
}

pub(super) fn is_ack(frame: &CanFrame) -> bool {
    frame.id().raw() >= 0x300 && matches!(Tpdu::decode(frame.data()), Ok(Tpdu::Ack { .. }))
}

pub(super) fn pdu(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}
