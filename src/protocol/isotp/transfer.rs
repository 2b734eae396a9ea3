//! The common interface of both endpoints.

use std::fmt::Debug;
use std::time::Instant;

use connector_hal::can::CanFrame;

use super::{Endpoint, Event, FunctionalEndpoint, SendError, SendFailure, Timer};

/// The polling contract of [`Endpoint`] and [`FunctionalEndpoint`], for code that drives either of them.
///
/// [`Endpoint`] describes the contract.
pub trait Transfer: Debug + Send {
    /// Returns whether a PDU is being sent.
    fn is_sending(&self) -> bool;

    /// Returns whether a segmented PDU is being received.
    fn is_receiving(&self) -> bool;

    /// Starts to send a PDU, which ends with [`Event::Sent`] or [`Event::SendFailed`].
    ///
    /// # Errors
    ///
    /// Another PDU is being sent, or the PDU is empty or too long.
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError>;

    /// Abandons the PDU that is being sent, without an event.
    fn abort_send(&mut self);

    /// Takes a frame from the bus; returns whether the frame was for this endpoint.
    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool;

    /// Reports that the oldest frame without an outcome was acknowledged on the bus.
    fn handle_transmitted(&mut self, now: Instant);

    /// Reports that the oldest frame without an outcome will not be sent, or with [`SendFailure::BusOff`]
    /// that none will.
    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure);

    /// Handles every timer that has expired.
    fn handle_timeout(&mut self, now: Instant);

    /// Returns the next frame to send.
    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame>;

    /// Returns the next event.
    fn poll_event(&mut self) -> Option<Event>;

    /// Returns when [`Transfer::handle_timeout`] is due, and for which timer.
    fn poll_timeout(&self) -> Option<(Instant, Timer)>;
}

/// Implements [`Transfer`] by the methods of the same names.
macro_rules! transfer {
    ($endpoint:ty) => {
        impl Transfer for $endpoint {
            fn is_sending(&self) -> bool {
                self.is_sending()
            }

            fn is_receiving(&self) -> bool {
                self.is_receiving()
            }

            fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
                self.send(now, pdu)
            }

            fn abort_send(&mut self) {
                self.abort_send();
            }

            fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
                self.handle_frame(now, frame)
            }

            fn handle_transmitted(&mut self, now: Instant) {
                self.handle_transmitted(now);
            }

            fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
                self.handle_transmit_failed(now, failure);
            }

            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }

            fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
                self.poll_transmit(now)
            }

            fn poll_event(&mut self) -> Option<Event> {
                self.poll_event()
            }

            fn poll_timeout(&self) -> Option<(Instant, Timer)> {
                self.poll_timeout()
            }
        }
    };
}

transfer!(Endpoint);
transfer!(FunctionalEndpoint);

#[cfg(test)]
mod tests {
    use connector_hal::can::CanId;

    use super::*;
    use crate::protocol::isotp::{Addressing, Config, FunctionalConfig, Responders};

    #[test]
    fn code_that_knows_only_the_trait_drives_either_endpoint() {
        let now = Instant::now();
        let id = |raw| CanId::try_from(raw).unwrap();
        let endpoints: [Box<dyn Transfer>; 2] = [
            Box::new(Endpoint::new(Config::new(Addressing::normal(id(0x7E0), id(0x7E8))))),
            Box::new(FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11))),
        ];
        for mut endpoint in endpoints {
            endpoint.send(now, &[0x09, 0x02]).unwrap();
            let request = endpoint.poll_transmit(now).unwrap();
            assert_eq!(request.data()[..3], [2, 0x09, 0x02]);
            endpoint.handle_transmitted(now);
            assert!(matches!(endpoint.poll_event(), Some(Event::Sent { .. })));
            let answer = CanFrame::new(id(0x7E8), &[3, 0x7F, 0x09, 0x12]).unwrap();
            assert!(endpoint.handle_frame(now, &answer));
            assert!(matches!(endpoint.poll_event(), Some(Event::ReceptionStarted { .. })));
            assert!(matches!(endpoint.poll_event(), Some(Event::Received { .. })));
            assert_eq!(endpoint.poll_timeout(), None);
        }
    }
}
