//! The questions of each stage of a scan, and their frames.

use std::collections::BTreeSet;

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::tp20::{APPLICATION_DIAGNOSTICS, LogicalAddress, SETUP_ID, SetupMessage, SetupOpcode};
use crate::protocol::uds::TESTER_PRESENT;
use crate::vehicle::scan::request::IdRange;
use crate::vehicle::scan::standing::{SPEED, SPEED_BY_UDS};

/// The padding of frames (ISO 15765-2, 10.4.2.1).
const PADDING: u8 = 0xCC;
/// OBD requests to all ECUs (ISO 15765-4), the identifier of no single ECU.
const FUNCTIONAL_11: u32 = 0x7DF;
/// The first identifier that TP2.0 channels are asked for.
const TP20_RECEIVE: u32 = 0x300;
/// The identifiers on which an extended address selects the ECU: BMW's, where the ECU answers with 0x600 plus
/// its address, and Toyota's, where all ECUs answer with one identifier.
const EXTENDED: [u32; 2] = [0x6F1, 0x750];
/// The identifiers that are always asked.
const STANDARD: std::ops::RangeInclusive<u32> = 0x700..=0x7FF;
/// The physical requests of GMLAN.
const GMLAN: std::ops::RangeInclusive<u32> = 0x241..=0x25F;

/// A question, sent in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanProbe {
    /// TesterPresent, with or without an extended address.
    TesterPresent { request: CanId, extended: Option<u8> },
    /// A request that shows whether the vehicle stands.
    Motion { request: CanId, question: MotionQuestion },
    /// The set-up of a TP2.0 channel.
    Setup { ecu: LogicalAddress, form: SetupForm },
    /// The end of a TP2.0 channel.
    Disconnect { request: CanId },
}

/// What is asked to know whether the vehicle stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MotionQuestion {
    /// The vehicle's speed by OBD.
    Speed,
    /// The vehicle's speed by UDS, for vehicles without OBD's first mode (SAE J1979-2).
    SpeedByUds,
}

/// The identifiers that a set-up request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetupForm {
    /// The identifier with which the ECU shall send.
    Transmit,
    /// Both identifiers.
    Both,
    /// No identifier.
    Neither,
}

impl ScanProbe {
    /// The identifier of the question's frame.
    pub(super) fn request(&self) -> CanId {
        match *self {
            Self::TesterPresent { request, .. }
            | Self::Motion { request, .. }
            | Self::Disconnect { request } => request,
            Self::Setup { .. } => SETUP_ID,
        }
    }

    /// Whether this answer grants exactly the channel that was asked for.
    pub(super) fn is_granted_by(&self, answer: &SetupMessage) -> bool {
        let Self::Setup { ecu, form } = *self else { return false };
        let is_asked_for = form == SetupForm::Neither || answer.receive == Some(tp20_receive(ecu));
        let names_both = answer.receive.is_some() && answer.transmit.is_some();
        is_asked_for && names_both && answer.application_type == APPLICATION_DIAGNOSTICS
    }

    /// The question's frame.
    pub(super) fn frame(&self) -> Option<CanFrame> {
        let single = |data: &[u8]| {
            let mut bytes = [PADDING; 8];
            bytes.get_mut(..data.len())?.copy_from_slice(data);
            CanFrame::new(self.request(), &bytes).ok()
        };
        match *self {
            Self::TesterPresent { extended: None, .. } => single(&[2, TESTER_PRESENT, 0]),
            Self::TesterPresent { extended: Some(address), .. } => single(&[address, 2, TESTER_PRESENT, 0]),
            Self::Motion { question, .. } => {
                let pdu: &[u8] = match question {
                    MotionQuestion::Speed => &SPEED,
                    MotionQuestion::SpeedByUds => &SPEED_BY_UDS,
                };
                single(&[&[u8::try_from(pdu.len()).ok()?], pdu].concat())
            }
            Self::Disconnect { request } => CanFrame::new(request, &[0xA8]).ok(),
            Self::Setup { ecu, form } => {
                let id = tp20_receive(ecu);
                let message = SetupMessage {
                    destination: ecu.get(),
                    opcode: SetupOpcode::Request,
                    receive: (form == SetupForm::Both).then_some(id),
                    transmit: (form != SetupForm::Neither).then_some(id),
                    application_type: APPLICATION_DIAGNOSTICS,
                };
                message.encode(SETUP_ID)
            }
        }
    }
}

/// The identifier with which an ECU is asked to send.
fn tp20_receive(ecu: LogicalAddress) -> CanId {
    CanId::standard_truncated(TP20_RECEIVE + u32::from(ecu.get() & 0x0F))
}

fn tester_present(id: CanId) -> ScanProbe {
    ScanProbe::TesterPresent { request: id, extended: None }
}

/// The requests for the vehicle's speed by OBD.
pub(super) fn speed() -> impl Iterator<Item = ScanProbe> {
    asked_of_all(MotionQuestion::Speed)
}

/// The requests for the vehicle's speed by UDS, where no ECU answers OBD's.
pub(super) fn speed_by_uds() -> impl Iterator<Item = ScanProbe> {
    asked_of_all(MotionQuestion::SpeedByUds)
}

fn asked_of_all(question: MotionQuestion) -> impl Iterator<Item = ScanProbe> {
    let ids = [CanId::standard_truncated(FUNCTIONAL_11), CanId::extended_truncated(0x18DB_33F1)];
    ids.into_iter().map(move |request| ScanProbe::Motion { request, question })
}

/// The 11-bit identifiers, in an order that seldom uses the identifier of an ECU's answer while that answer
/// may come. Those below 0x700 are asked only if `ranges` contains them: vehicles have other messages there,
/// such as airbag, calibration and network management, that are not always heard before.
pub(super) fn standard(ranges: &[IdRange]) -> impl Iterator<Item = ScanProbe> + use<> {
    let mut asked: BTreeSet<u32> = STANDARD.collect();
    asked.extend(ranges.iter().flat_map(|range| range.ids()));
    asked.remove(&FUNCTIONAL_11);
    let (first, second): (Vec<u32>, Vec<u32>) = asked.into_iter().partition(|id| id & 8 == 0);
    let ids = first.into_iter().chain(second).chain(GMLAN);
    ids.map(|id| tester_present(CanId::standard_truncated(id)))
}

/// Whether only General Motors' ECUs are asked with this identifier.
pub(super) fn is_gmlan(id: CanId) -> bool {
    !id.is_extended() && GMLAN.contains(&id.raw())
}

/// The 29-bit identifiers of normal fixed addressing, except the tester's.
pub(super) fn extended() -> impl Iterator<Item = ScanProbe> {
    let addresses = (0..=0xFF_u32).filter(|address| *address != 0xF1);
    addresses.map(|address| tester_present(CanId::extended_truncated(0x18DA_00F1 | address << 8)))
}

/// All extended addresses on the identifiers that are known for them, of which BMW's must be in `ranges`.
pub(super) fn extended_addresses(ranges: &[IdRange]) -> impl Iterator<Item = ScanProbe> + use<> {
    let is_asked = |id: &u32| STANDARD.contains(id) || ranges.iter().any(|range| range.contains(*id));
    let ids: Vec<u32> = EXTENDED.into_iter().filter(is_asked).collect();
    ids.into_iter().flat_map(|id| {
        (0..=0xFF).map(move |address| ScanProbe::TesterPresent {
            request: CanId::standard_truncated(id),
            extended: Some(address),
        })
    })
}

/// The channel set-ups for all logical addresses of TP2.0.
pub(super) fn tp20(forms: &'static [SetupForm]) -> impl Iterator<Item = ScanProbe> {
    forms.iter().flat_map(|form| {
        let addresses = (0..=0xFF).filter_map(|address| LogicalAddress::try_from(address).ok());
        addresses.map(|ecu| ScanProbe::Setup { ecu, form: *form })
    })
}

/// The number of questions, except those that depend on answers.
pub(super) fn count(ranges: &[IdRange]) -> u32 {
    number(speed().count() + speed_by_uds().count() + standard(ranges).count())
        .saturating_add(count_after_standard(ranges))
}

/// The number of questions behind those to 11-bit identifiers, except those that depend on answers.
pub(super) fn count_after_standard(ranges: &[IdRange]) -> u32 {
    number(extended().count() + extended_addresses(ranges).count() + tp20(&[SetupForm::Transmit]).count())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
