//! A lost websocket, and the next one that continues the connection (relay protocol, section 4.3).

use std::time::Instant;

use super::{Link, LinkError, Role};

impl Link {
    /// The websocket is lost, or the peer is not reachable: no message is sent until [`Link::resume`].
    pub fn interrupt(&mut self) {
        self.is_up = false;
        self.clock_sent = None;
        self.is_clock_announced = false;
    }

    /// The peer is reachable again, and no message was lost: those that it has not acknowledged are sent again.
    pub(crate) fn resume_unacknowledged(&mut self, now: Instant) {
        // the peer's own acknowledgement is never refused
        let _resumed = self.resume(now, self.outbox.acknowledged());
    }

    /// The peer is back and has received the messages up to `received`. All later messages are sent again, in
    /// order and with the same numbers.
    ///
    /// The operator's end removes all frames from the messages that it still keeps.
    pub fn resume(&mut self, now: Instant, received: u32) -> Result<(), LinkError> {
        let forgotten = self.outbox.acknowledged();
        if received < forgotten {
            return Err(LinkError::Forgotten { received, forgotten });
        }
        self.handle_acknowledgement(now, received)?;
        if self.role == Role::Operator {
            self.outbox.leave_out_frames();
        }
        self.outbox.rewind(self.clock(now));
        self.pacer.reset();
        self.peer_clock.handle_resumed();
        self.is_up = true;
        if self.role == Role::Connector {
            self.announce_clock();
        }
        Ok(())
    }
}
