//! The agent's ISO-TP endpoint on a CAN interface of the kernel.

use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FrameSize, Padding, SeparationTime, Timeouts,
};
use connector_hal::can::{CanBus, CanBusExt, CanEvent, CanFrame, CanSettings, open};
use connector_hal::timer::{Deadline, TimerKind};

use crate::id;

/// A limit that no step reaches, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const CLOCK: TimerKind = TimerKind::Precise;
pub const SETTINGS: CanSettings =
    CanSettings { bit_rate: 500_000, data_bit_rate: Some(2_000_000), listen_only: false };

/// Every addressing mode, with its name.
pub fn modes() -> [(&'static str, Addressing); 7] {
    let (a, b) = (id(0x7E0), id(0x7E8));
    let (long_a, long_b) = (id(0x18DA_10F1), id(0x18DA_F110));
    [
        ("normal 11", Addressing::normal(a, b)),
        ("normal 29", Addressing::normal(id(0x8000_0123), id(0x8000_0124))),
        ("normal fixed", Addressing::normal_fixed(0x10, 0xF1)),
        ("extended 11", Addressing::extended(a, b, 0x10, 0xF1)),
        ("extended 29", Addressing::extended(long_a, long_b, 0x10, 0xF1)),
        ("mixed 11", Addressing::mixed(a, b, 0x99)),
        ("mixed 29", Addressing::mixed_fixed(0x10, 0xF1, 0x99)),
    ]
}

/// A configuration with timeouts that even a busy machine does not reach.
pub fn config(
    addressing: Addressing,
    (block_size, st_min): (u8, u8),
    frame_size: FrameSize,
    padding: Padding,
) -> Config {
    let timeouts = Timeouts { n_as: PATIENCE, n_ar: PATIENCE, n_bs: PATIENCE, n_cr: PATIENCE };
    let st_min = SeparationTime(st_min);
    Config { block_size, st_min, frame_size, padding, timeouts, ..Config::new(addressing) }
}

/// The agent's side of a transfer.
pub struct AgentEndpoint {
    pub endpoint: Endpoint,
    pub bus: Box<dyn CanBus>,
    deadline: Deadline,
    outgoing: Option<CanFrame>,
    /// The times when the frames of this endpoint, and the frames for it, were on the bus.
    pub sent: Vec<Instant>,
    pub received: Vec<Instant>,
}

impl AgentEndpoint {
    pub async fn open(interface: &str, config: Config) -> Self {
        let mut bus = open(interface).unwrap();
        bus.configure(SETTINGS).await.unwrap();
        let endpoint = Endpoint::new(config);
        let deadline = Deadline::new(CLOCK);
        Self { endpoint, bus, deadline, outgoing: None, sent: Vec::new(), received: Vec::new() }
    }

    pub fn restart(&mut self, config: Config) {
        self.endpoint = Endpoint::new(config);
    }

    pub fn send(&mut self, pdu: &[u8]) {
        self.sent.clear();
        self.endpoint.send(CLOCK.now(), pdu).unwrap();
    }

    /// Runs until the endpoint reports an event; cancel-safe.
    pub async fn event(&mut self) -> Event {
        loop {
            if self.outgoing.is_none() {
                self.outgoing = self.endpoint.poll_transmit(CLOCK.now());
            }
            if let Some(frame) = self.outgoing {
                self.bus.send(&frame).await.unwrap();
                self.outgoing = None;
                continue;
            }
            if let Some(event) = self.endpoint.poll_event() {
                return event;
            }
            self.deadline.set(self.endpoint.poll_timeout().map(|(at, _)| at));
            tokio::select! {
                biased;
                event = self.bus.event() => self.handle(event.unwrap()),
                () = self.deadline.expired() => self.endpoint.handle_timeout(CLOCK.now()),
            }
        }
    }

    fn handle(&mut self, event: CanEvent) {
        let now = CLOCK.now();
        match event {
            CanEvent::Received { frame, at } => {
                if self.endpoint.handle_frame(now, &frame) {
                    self.received.push(at);
                }
            }
            CanEvent::Transmitted { at } => {
                self.sent.push(at);
                self.endpoint.handle_transmitted(now);
            }
            event => panic!("{event:?}"),
        }
    }
}
