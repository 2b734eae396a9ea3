//! The transport to one ECU, or to many at once.

use std::time::Instant;

use connector_hal::can::CanFrame;

use super::probes::{HeardIds, Target, functional_config, physical_config};
use crate::protocol::isotp;
use crate::protocol::isotp::{Endpoint, FunctionalEndpoint, SendError, SendFailure};

/// The transport for one [`Target`].
#[derive(Debug)]
pub(super) struct Link {
    target: Target,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Functional(FunctionalEndpoint),
    Physical(Endpoint),
}

/// Calls the method of that name on whichever endpoint it is.
macro_rules! on_endpoint {
    ($link:expr, $endpoint:ident => $call:expr) => {
        match &mut $link.transport {
            Transport::Functional($endpoint) => $call,
            Transport::Physical($endpoint) => $call,
        }
    };
}

impl Link {
    pub(super) fn new(target: Target, heard: &HeardIds) -> Self {
        let transport = match target {
            Target::Functional(request) => {
                Transport::Functional(FunctionalEndpoint::new(functional_config(request, heard)))
            }
            Target::Physical { request, response } => {
                Transport::Physical(Endpoint::new(physical_config(request, response)))
            }
        };
        Self { target, transport }
    }

    pub(super) fn target(&self) -> Target {
        self.target
    }

    pub(super) fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        on_endpoint!(self, endpoint => endpoint.send(now, pdu))
    }

    pub(super) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        on_endpoint!(self, endpoint => endpoint.handle_frame(now, frame))
    }

    pub(super) fn handle_transmitted(&mut self, now: Instant) {
        on_endpoint!(self, endpoint => endpoint.handle_transmitted(now));
    }

    pub(super) fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        on_endpoint!(self, endpoint => endpoint.handle_transmit_failed(now, failure));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        on_endpoint!(self, endpoint => endpoint.handle_timeout(now));
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        on_endpoint!(self, endpoint => endpoint.poll_transmit(now))
    }

    pub(super) fn poll_event(&mut self) -> Option<isotp::Event> {
        on_endpoint!(self, endpoint => endpoint.poll_event())
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, isotp::Timer)> {
        match &self.transport {
            Transport::Functional(endpoint) => endpoint.poll_timeout(),
            Transport::Physical(endpoint) => endpoint.poll_timeout(),
        }
    }
}
