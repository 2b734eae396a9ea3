//! What a can-isotp socket does with PDUs, and what its errors mean. It asks the socket, and never waits.

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::{IsotpEvent, IsotpReceiveError, IsotpSendError};

/// The system calls of a socket that does not block.
pub(super) trait SocketCalls {
    /// Whether the socket is readable, writable or has an error now; `None` if the system does not say.
    fn state(&self) -> Option<PollFlags>;

    /// Hands a PDU to the kernel.
    fn write(&self, pdu: &[u8]) -> Result<(), Errno>;

    /// Reads a PDU, and returns its length. Of a longer PDU, the rest is lost.
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Takes the error that is pending on the socket (`SO_ERROR`).
    fn take_error(&self) -> Option<Errno>;
}

/// One PDU at a time in each direction.
#[derive(Debug)]
pub(super) struct Transfer<S> {
    device: String,
    /// `None` only during drop.
    socket: Option<S>,
    max_pdu: usize,
    buffer: Vec<u8>,
    is_sending: bool,
    /// The interface has gone away. The kernel then reports an error for ever.
    is_dead: bool,
}

impl<S: SocketCalls> Transfer<S> {
    /// `max_pdu` is the longest accepted PDU, in bytes.
    pub(super) fn new(device: &str, socket: S, max_pdu: usize) -> Self {
        let device = device.to_owned();
        Self { device, socket: Some(socket), max_pdu, buffer: Vec::new(), is_sending: false, is_dead: false }
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }

    pub(super) fn max_pdu(&self) -> usize {
        self.max_pdu
    }

    pub(super) fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Whether there will be no more events.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Takes the socket out if the kernel may still be sending.
    pub(super) fn take_busy(&mut self) -> Option<S> {
        self.socket.take_if(|_| self.is_sending || self.is_dead)
    }

    /// Hands a PDU to the kernel; `None` if the kernel has no room yet.
    pub(super) fn send(&mut self, pdu: &[u8]) -> Option<Result<(), IsotpSendError>> {
        if pdu.is_empty() || pdu.len() > self.max_pdu {
            return Some(Err(IsotpSendError::Length));
        }
        loop {
            let Some(socket) = self.socket.as_ref().filter(|_| !self.is_dead) else {
                return Some(Err(IsotpSendError::InterfaceDown));
            };
            match socket.write(pdu) {
                Ok(()) => {
                    self.is_sending = true;
                    return Some(Ok(()));
                }
                Err(Errno::AGAIN | Errno::NOBUFS) => return None,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::MSGSIZE) => return Some(Err(IsotpSendError::Length)),
                Err(error) => {
                    tracing::debug!(device = %self.device, %error, "the kernel refuses to send a PDU");
                    return Some(Err(IsotpSendError::InterfaceDown));
                }
            }
        }
    }

    /// The event that is ready now, if any.
    pub(super) fn next_event(&mut self) -> Option<IsotpEvent> {
        let mut last_error = None;
        while !self.is_dead {
            let state = self.state()?;
            if state.intersects(PollFlags::IN | PollFlags::ERR) {
                match self.receive() {
                    Ok(Some(event)) => return Some(event),
                    Ok(None) => {}
                    Err(error) if self.is_final(error) || last_error == Some(error) => {
                        return self.die(error);
                    }
                    Err(error) => {
                        last_error = Some(error);
                        match self.handle_error(error) {
                            Some(event) => return Some(event),
                            None => continue,
                        }
                    }
                }
            }
            if self.is_sending && state.contains(PollFlags::OUT) {
                // the kernel sets an error before sending ends: an error may be newer than `state`
                if self.state()?.contains(PollFlags::ERR) {
                    continue;
                }
                self.is_sending = false;
                return Some(IsotpEvent::Sent);
            }
            return None;
        }
        None
    }

    fn state(&self) -> Option<PollFlags> {
        self.socket.as_ref()?.state()
    }

    /// Reads a PDU, if one has been received.
    fn receive(&mut self) -> Result<Option<IsotpEvent>, Errno> {
        let Some(socket) = &self.socket else { return Ok(None) };
        // one extra byte reveals a PDU that is too long
        self.buffer.resize(self.max_pdu + 1, 0);
        match socket.read(&mut self.buffer) {
            Ok(len) => Ok(Some(match self.buffer.get(..len) {
                Some(pdu) if len <= self.max_pdu => IsotpEvent::Received(pdu.to_vec()),
                _ => IsotpEvent::ReceiveFailed(IsotpReceiveError::TooLong),
            })),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the interface has gone away. Reading from a socket without an interface does not take the error
    /// that the kernel has set, so the socket stays ready.
    fn is_final(&self, error: Errno) -> bool {
        let is_final = |error| matches!(error, Errno::ADDRNOTAVAIL | Errno::NODEV | Errno::NETDOWN);
        // behind the failure of a PDU, the failure of another PDU may be pending
        let is_of_pdu =
            matches!(error, Errno::ILSEQ | Errno::TIMEDOUT | Errno::COMM | Errno::MSGSIZE | Errno::BADMSG);
        let pending = || self.socket.as_ref().and_then(SocketCalls::take_error);
        is_final(error) || !is_of_pdu && pending().is_some_and(is_final)
    }

    /// Ends the socket; the PDU that is being sent fails.
    fn die(&mut self, error: Errno) -> Option<IsotpEvent> {
        tracing::debug!(device = %self.device, %error, "the interface of an ISO-TP socket is gone");
        self.is_dead = true;
        let was_sending = std::mem::take(&mut self.is_sending);
        was_sending.then_some(IsotpEvent::SendFailed(IsotpSendError::InterfaceDown))
    }

    /// Maps an error of the socket: the kernel reports errors of both directions in the same way.
    fn handle_error(&mut self, error: Errno) -> Option<IsotpEvent> {
        tracing::trace!(device = %self.device, %error, "ISO-TP socket error");
        let receive_error = match error {
            Errno::ILSEQ => Some(IsotpReceiveError::WrongSequenceNumber),
            Errno::TIMEDOUT => Some(IsotpReceiveError::Timeout),
            _ => None,
        };
        if let Some(error) = receive_error {
            return Some(IsotpEvent::ReceiveFailed(error));
        }
        if !std::mem::take(&mut self.is_sending) {
            return None;
        }
        Some(IsotpEvent::SendFailed(match error {
            Errno::COMM => IsotpSendError::Timeout,
            Errno::MSGSIZE => IsotpSendError::Overflow,
            Errno::BADMSG => IsotpSendError::InvalidFlowStatus,
            _ => IsotpSendError::InterfaceDown,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A socket that always has an error, of which reading returns this one and `SO_ERROR` that one.
    #[derive(Default)]
    struct Broken {
        reads: RefCell<Vec<Errno>>,
        pending: Cell<Option<Errno>>,
        calls: Cell<u32>,
    }

    impl SocketCalls for Broken {
        fn state(&self) -> Option<PollFlags> {
            self.calls.set(self.calls.get() + 1);
            assert!(self.calls.get() < 100, "an endless loop");
            Some(PollFlags::ERR | PollFlags::OUT)
        }

        fn write(&self, _: &[u8]) -> Result<(), Errno> {
            Ok(())
        }

        fn read(&self, _: &mut [u8]) -> Result<usize, Errno> {
            let mut reads = self.reads.borrow_mut();
            Err(if reads.len() > 1 { reads.remove(0) } else { reads[0] })
        }

        fn take_error(&self) -> Option<Errno> {
            self.pending.take()
        }
    }

    fn broken(reads: &[Errno], pending: Option<Errno>) -> Transfer<Broken> {
        let socket =
            Broken { reads: RefCell::new(reads.to_vec()), pending: Cell::new(pending), ..Broken::default() };
        Transfer::new("can0", socket, 100)
    }

    #[test]
    fn a_socket_whose_interface_has_vanished_fails_its_pdu_and_ends() {
        for (reads, pending) in [
            // what the kernel says after NETDEV_UNREGISTER, and older kernels
            (vec![Errno::ADDRNOTAVAIL], Some(Errno::NODEV)),
            (vec![Errno::ADDRNOTAVAIL], None),
            (vec![Errno::NODEV], None),
            (vec![Errno::NETDOWN], None),
            (vec![Errno::IO], Some(Errno::NODEV)),
            // any other error that stays
            (vec![Errno::IO, Errno::IO], None),
        ] {
            let mut transfer = broken(&reads, pending);
            assert_eq!(transfer.send(&[0x3E, 0]), Some(Ok(())));
            let failed = IsotpEvent::SendFailed(IsotpSendError::InterfaceDown);
            assert_eq!(transfer.next_event(), Some(failed), "{reads:?}");
            assert_eq!(transfer.next_event(), None);
            assert!(transfer.is_dead(), "{reads:?}");
            assert_eq!(transfer.send(&[0x3E, 0]), Some(Err(IsotpSendError::InterfaceDown)));
            // closing may block until the kernel gives the PDU up
            assert!(transfer.take_busy().is_some());
        }
    }

    #[test]
    fn an_idle_socket_whose_interface_has_vanished_ends_silently() {
        for reads in [vec![Errno::ADDRNOTAVAIL], vec![Errno::COMM]] {
            let mut transfer = broken(&reads, None);
            assert_eq!((transfer.next_event(), transfer.is_dead()), (None, true), "{reads:?}");
        }
    }

    #[test]
    fn a_socket_survives_the_failure_of_a_pdu() {
        let mut transfer = broken(&[Errno::ILSEQ, Errno::COMM, Errno::TIMEDOUT], None);
        assert_eq!(transfer.send(&[0x3E, 0]), Some(Ok(())));
        let failed = |error| Some(IsotpEvent::ReceiveFailed(error));
        assert_eq!(transfer.next_event(), failed(IsotpReceiveError::WrongSequenceNumber));
        assert_eq!(transfer.next_event(), Some(IsotpEvent::SendFailed(IsotpSendError::Timeout)));
        assert_eq!(transfer.next_event(), failed(IsotpReceiveError::Timeout));
        assert!(!transfer.is_dead());
        assert_eq!(transfer.send(&[0x3E, 0]), Some(Ok(())));
    }
}
