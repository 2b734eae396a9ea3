//! The transport to one ECU, or to all ECUs that listen to a functional identifier.

use std::time::Instant;

use connector_hal::can::CanFrame;

use super::probes::{HeardIds, Target, functional_config, physical_config};
use crate::protocol::isotp;
use crate::protocol::isotp::{Endpoint, FunctionalEndpoint, SendError, SendFailure};

/// The transport for one [`Target`].
#[derive(Debug)]
pub(super) struct Peer {
    target: Target,
    transport: PeerTransport,
}

#[derive(Debug)]
enum PeerTransport {
    Functional(FunctionalEndpoint),
    Physical(Endpoint),
}

/// Calls a method that both kinds of endpoints have.
macro_rules! on_endpoint {
    ($peer:expr, $endpoint:ident => $call:expr) => {
        match &mut $peer.transport {
            PeerTransport::Functional($endpoint) => $call,
            PeerTransport::Physical($endpoint) => $call,
        }
    };
}

impl Peer {
    pub(super) fn new(target: Target, heard: &HeardIds) -> Self {
        let transport = match target {
            Target::Functional(request) => {
                PeerTransport::Functional(FunctionalEndpoint::new(functional_config(request, heard)))
            }
            Target::Physical { request, response } => {
                PeerTransport::Physical(Endpoint::new(physical_config(request, response)))
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

    pub(super) fn skip_flow_control(&mut self, now: Instant, frame: &CanFrame) {
        on_endpoint!(self, endpoint => endpoint.skip_flow_control(now, frame));
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
            PeerTransport::Functional(endpoint) => endpoint.poll_timeout(),
            PeerTransport::Physical(endpoint) => endpoint.poll_timeout(),
        }
    }
}
