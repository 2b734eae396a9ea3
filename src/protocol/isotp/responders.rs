//! The ECUs that may answer a functional request, and the addresses for flow control to them.

use connector_hal::can::{CanFrame, CanId};

use super::address::{address_matches, known_request_id};

/// An ECU that may answer a functional request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Responder {
    /// Identifier of the ECU's frames.
    pub response: CanId,
    /// Address byte of the ECU's frames, for extended and mixed addressing.
    pub response_address: Option<u8>,
    /// Address for flow control to the ECU. If absent, only single frames are received from the ECU: two nodes
    /// that send with one identifier destroy each other's frames, so the address is never guessed.
    pub flow_control: Option<FlowControlAddress>,
}

/// The address of flow controls to one ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowControlAddress {
    /// Identifier of the flow controls.
    pub id: CanId,
    /// Address byte of the flow controls, for extended and mixed addressing.
    pub address: Option<u8>,
}

impl Responder {
    /// An ECU with normal addressing, whose two identifiers are known.
    pub fn pair(response: CanId, request: CanId) -> Self {
        let flow_control = Some(FlowControlAddress { id: request, address: None });
        Self { response, response_address: None, flow_control }
    }

    /// An ECU of which the identifier of its frames is known. Flow control has an address if a standard assigns
    /// the request identifier, and functional requests have no address byte, or the one of their answers (mixed
    /// addressing).
    pub fn answering(response: CanId, request_address: Option<u8>, response_address: Option<u8>) -> Self {
        let is_known = request_address.is_none() || request_address == response_address;
        let id = known_request_id(response).filter(|_| is_known);
        let flow_control = id.map(|id| FlowControlAddress { id, address: request_address });
        Self { response, response_address, flow_control }
    }

    fn sends(&self, frame: &CanFrame) -> bool {
        self.response == frame.id() && address_matches(self.response_address, frame.data())
    }
}

/// The ECUs that may answer a functional request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Responders {
    /// 0x7E8…0x7EF, with flow control on 0x7E0…0x7E7 (ISO 15765-4).
    Obd11,
    /// 0x18DAF1xx, with flow control on 0x18DAxxF1 (ISO 15765-4).
    Obd29,
    /// These ECUs. Of two that send the same frames, the first counts.
    List(Vec<Responder>),
}

impl Responders {
    /// Returns whether an ECU with this identifier may answer.
    pub fn include(&self, response: CanId) -> bool {
        let raw = response.raw();
        match self {
            Self::Obd11 => !response.is_extended() && raw & !0x7 == 0x7E8,
            Self::Obd29 => response.is_extended() && raw & !0xFF == 0x18DA_F100,
            Self::List(list) => list.iter().any(|responder| responder.response == response),
        }
    }

    /// Returns the ECU that sent the frame. The address bytes are those of the functional request and its answers.
    pub(super) fn sender_of(
        &self,
        frame: &CanFrame,
        request_address: Option<u8>,
        response_address: Option<u8>,
    ) -> Option<Responder> {
        match self {
            Self::List(list) => list.iter().find(|responder| responder.sends(frame)).copied(),
            Self::Obd11 | Self::Obd29 => {
                let responder = Responder::answering(frame.id(), request_address, response_address);
                (self.include(frame.id()) && responder.sends(frame)).then_some(responder)
            }
        }
    }
}
