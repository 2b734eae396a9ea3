//! One ISO-TP transfer without a bus between the two ends.

use std::time::Instant;

use connector_agent::protocol::isotp::{Endpoint, Event};

/// Carries frames both ways until neither end has a frame left; returns the PDU that `to` received.
pub(crate) fn transfer(now: Instant, from: &mut Endpoint, to: &mut Endpoint, pdu: &[u8]) -> Option<Vec<u8>> {
    from.send(now, pdu).ok()?;
    loop {
        let mut idle = true;
        while let Some(frame) = from.poll_transmit(now) {
            from.handle_transmitted(now);
            to.handle_frame(now, &frame);
            idle = false;
        }
        while let Some(frame) = to.poll_transmit(now) {
            to.handle_transmitted(now);
            from.handle_frame(now, &frame);
            idle = false;
        }
        if idle {
            break;
        }
    }
    while from.poll_event().is_some() {}
    std::iter::from_fn(|| to.poll_event()).find_map(|event| match event {
        Event::Received { pdu, .. } => Some(pdu),
        _ => None,
    })
}
