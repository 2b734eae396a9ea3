//! What frames of one identifier mean for the ISO-TP receivers behind it.

use crate::protocol::isotp::NPdu;

use super::super::services::can_be_carried_out;
use super::identifiers::Addressing;

/// The most PDUs under way on one identifier: with extended addressing, one for each ECU. The oldest is forgotten, and
/// its consecutive frames are refused.
const MAX_OPEN: usize = 16;

/// What a frame means for the receivers with one form of addressing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsotpMeaning<'a> {
    /// Begins a PDU with these first bytes; the rest comes in consecutive frames if this is only the start.
    Request { data: &'a [u8], is_start: bool },
    /// Continues a PDU whose first frame was allowed.
    Continued,
    /// Continues a PDU whose first frame was refused.
    Refused,
    /// Continues no PDU.
    Unstarted,
    /// Lets the sender of a response continue.
    FlowControl,
    /// Not a frame of ISO-TP.
    Other,
    /// A frame that every receiver ignores.
    Ignored,
}

/// A PDU under way.
#[derive(Debug, Clone, Copy)]
struct PduUnderWay {
    /// The number of address bytes, and the address.
    address: Address,
    is_allowed: bool,
    left: u32,
}

/// The receivers with one form of addressing: those without an address byte, or those with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(Option<u8>);

impl Address {
    pub(super) fn byte(self) -> Option<u8> {
        self.0
    }

    fn len(self) -> usize {
        usize::from(self.0.is_some())
    }
}

/// The addressing forms that a frame may have.
pub(super) fn addresses(addressing: Addressing, data: &[u8]) -> [Option<Address>; 2] {
    let extended = data.first().map(|byte| Address(Some(*byte)));
    match addressing {
        Addressing::Either => [Some(Address(None)), extended],
        Addressing::Normal => [Some(Address(None)), None],
        Addressing::Extended => [None, extended],
    }
}

/// The PDUs under way on one identifier.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    open: Vec<PduUnderWay>,
}

impl Receivers {
    /// What the frame means for the receivers with this address.
    pub(super) fn meaning<'a>(&self, address: Address, data: &'a [u8]) -> IsotpMeaning<'a> {
        match NPdu::decode(data, address.len()) {
            Ok(NPdu::SingleFrame { data: request }) => Self::request(address, request, request.len()),
            Ok(NPdu::FirstFrame { length, data: request }) => {
                Self::request(address, request, usize::try_from(length).unwrap_or(usize::MAX))
            }
            Ok(NPdu::ConsecutiveFrame { .. }) => {
                match self.open.iter().find(|open| open.address == address) {
                    Some(open) if open.is_allowed => IsotpMeaning::Continued,
                    Some(_) => IsotpMeaning::Refused,
                    None => IsotpMeaning::Unstarted,
                }
            }
            Ok(NPdu::FlowControl { .. }) => IsotpMeaning::FlowControl,
            Err(_) if data.get(address.len()).is_some_and(|pci| pci >> 4 > 3) => IsotpMeaning::Other,
            Err(_) => IsotpMeaning::Ignored,
        }
    }

    /// Bytes of another form of addressing often look like a service that no ECU has: those are ignored where the first
    /// byte may be an address or not.
    fn request(address: Address, request: &[u8], length: usize) -> IsotpMeaning<'_> {
        let is_possible = address.byte().is_none() || length > request.len() || can_be_carried_out(request);
        let is_start = length > request.len();
        if is_possible { IsotpMeaning::Request { data: request, is_start } } else { IsotpMeaning::Ignored }
    }

    /// Handles a lost frame: PDUs under way may have lost their first frame.
    pub(super) fn handle_lost(&mut self) {
        self.open.iter_mut().for_each(|open| open.is_allowed = false);
    }

    /// Handles a frame that was let through, or refused.
    pub(super) fn handle_frame(&mut self, address: Address, data: &[u8], is_allowed: bool) {
        let known = self.open.iter().position(|open| open.address == address);
        match NPdu::decode(data, address.len()) {
            Ok(NPdu::SingleFrame { .. }) if is_allowed => {
                if let Some(at) = known {
                    self.open.remove(at);
                }
            }
            Ok(NPdu::FirstFrame { length, data: request }) => {
                if let Some(at) = known {
                    self.open.remove(at);
                } else if self.open.len() >= MAX_OPEN {
                    self.open.remove(0);
                }
                let sent = u32::try_from(request.len()).unwrap_or(u32::MAX);
                self.open.push(PduUnderWay { address, is_allowed, left: length.saturating_sub(sent) });
            }
            Ok(NPdu::ConsecutiveFrame { data, .. }) if is_allowed => {
                let Some(open) = known.and_then(|at| self.open.get_mut(at)) else { return };
                if !open.is_allowed {
                    return;
                }
                open.left = open.left.saturating_sub(u32::try_from(data.len()).unwrap_or(u32::MAX));
                if open.left == 0
                    && let Some(at) = known
                {
                    self.open.remove(at);
                }
            }
            _ => {}
        }
    }
}
