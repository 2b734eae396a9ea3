//! One endpoint, with a peer and a bus that follow a script.

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, FdFlags};

use super::id;
use crate::protocol::isotp::{Config, Endpoint, Event, SendFailure, Timer};

pub(super) struct Script {
    pub endpoint: Endpoint,
    pub now: Instant,
}

impl Script {
    pub(super) fn new(config: Config) -> Self {
        Self { endpoint: Endpoint::new(config), now: Instant::now() }
    }

    pub(super) fn send(&mut self, pdu: &[u8]) {
        self.endpoint.send(self.now, pdu).unwrap();
    }

    /// Passes a frame of the peer, written as candump writes it, to the endpoint.
    pub(super) fn receive(&mut self, text: &str) {
        assert!(self.endpoint.handle_frame(self.now, &frame(text)), "{text} is for this endpoint");
    }

    /// The next frame that the endpoint sends, as candump writes it; empty if there is none.
    pub(super) fn transmit(&mut self) -> String {
        self.endpoint.poll_transmit(self.now).map_or(String::new(), |frame| frame.to_string())
    }

    /// The bus acknowledges the oldest frame.
    pub(super) fn confirm(&mut self) {
        self.endpoint.handle_transmitted(self.now);
    }

    /// The next frame that the endpoint sends, acknowledged immediately.
    pub(crate) fn transmit_confirmed(&mut self) -> String {
        let text = self.transmit();
        self.confirm();
        text
    }

    pub(super) fn fail(&mut self, failure: SendFailure) {
        self.endpoint.handle_transmit_failed(self.now, failure);
    }

    /// Lets time pass in one step.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.endpoint.handle_timeout(self.now);
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// The next timer, and the milliseconds until it expires.
    pub(super) fn timer(&self) -> Option<(Timer, u128)> {
        self.endpoint.poll_timeout().map(|(at, timer)| (timer, at.duration_since(self.now).as_millis()))
    }

    pub(super) fn event(&mut self) -> Option<Event> {
        self.endpoint.poll_event()
    }

    /// All waiting events.
    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.endpoint.poll_event()).collect()
    }
}

/// Reads `7E8#3000` or, with FD, `7E8##03000`, or `7E8##13000` with a bit rate switch.
pub(super) fn frame(text: &str) -> CanFrame {
    let (address, rest) = text.split_once('#').unwrap();
    let address = id(u32::from_str_radix(address, 16).unwrap());
    let hex = rest.strip_prefix("#1").or_else(|| rest.strip_prefix("#0")).unwrap_or(rest);
    let data: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    if hex.len() == rest.len() {
        CanFrame::new(address, &data).unwrap()
    } else {
        let flags = FdFlags { bit_rate_switch: rest.starts_with("#1"), error_state: false };
        CanFrame::new_fd(address, flags, &data).unwrap()
    }
}
