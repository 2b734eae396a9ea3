//! Checks the content of `openChannel`, and determines the kind of channel.

use std::time::Duration;

use connector_hal::can::CanId;

use crate::policy::{Framing, IntentTarget};
use crate::protocol::kline::Addressing;
use crate::protocol::problem::Problem;
use crate::relay::channel::{PduChannelSettings, ResponseTiming};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::request::{
    DoipChannelConfig, FrameFormat, IsotpChannelConfig, KlineChannelConfig, OpenChannel, PduOptions,
    RawChannelConfig, ResponderConfig, Switch, Terminal15ChannelConfig, Tp20ChannelConfig,
};

/// How long a chained PDU waits by default for the response to the PDU before it: P2 of the relay protocol,
/// section 4.1.
const DEFAULT_P2: Duration = Duration::from_secs(1);
/// How long a chained PDU waits by default, and at least, after response pending (P2*): 5 s of the ECU, and time for
/// network and bus.
const DEFAULT_P2_STAR: Duration = Duration::from_millis(5500);
/// The greatest age of frames that an operator may choose: a frame that is older belongs to another situation.
const LONGEST_RAW_MAX_AGE: Duration = Duration::from_secs(5);
/// The greatest age of PDUs that an operator may choose: longer than any connection is held.
const LONGEST_PDU_MAX_AGE: Duration = Duration::from_secs(300);
/// TX_DL of a channel of FD frames that states none, in bytes: the longest that CAN FD has.
pub(super) const LONGEST_TX_DL: u8 = 64;
/// The kinds of channels in the protocol's vocabulary.
const CHANNEL_KINDS: [&str; 6] =
    ["raw_channel", "isotp_channel", "tp20_channel", "kline_channel", "doip_channel", "terminal15_channel"];

pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    ProblemKind::InvalidMessage.problem(detail)
}

/// Reads a CAN identifier. The error names the field.
pub(super) fn can_id(field: &str, value: u32) -> Result<CanId, Problem> {
    CanId::try_from(value).map_err(|error| invalid(format!("{field}: {error}.")))
}

pub(crate) fn unsupported(detail: impl Into<String>) -> Problem {
    ProblemKind::Unsupported.problem(detail)
}

pub(crate) fn unknown_pins(detail: impl Into<String>) -> Problem {
    ProblemKind::UnknownPins.problem(detail)
}

/// The problem that a bus does not have this kind of channel.
pub(crate) fn wrong_kind(bus_name: &str, bus_kind: &str, channel: &ChannelKind) -> Problem {
    let detail = format!("Bus {bus_name:?} is a {bus_kind}, which has no {}.", channel.name());
    ProblemKind::WrongBusKind.problem(detail)
}

/// A channel that an operator requested: its bus and its kind.
pub(crate) struct ChannelSetup {
    pub(crate) bus_name: String,
    pub(crate) kind: ChannelKind,
    max_age: Option<Duration>,
}

/// The kind of a channel, with its configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelKind {
    Raw(RawChannelConfig),
    Isotp(IsotpChannelConfig),
    Tp20(Tp20ChannelConfig),
    Kline(KlineChannelConfig),
    Doip(DoipChannelConfig),
    Terminal15(Terminal15ChannelConfig),
}

impl ChannelKind {
    /// The name of the kind in the relay protocol.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Raw(_) => "raw_channel",
            Self::Isotp(_) => "isotp_channel",
            Self::Tp20(_) => "tp20_channel",
            Self::Kline(_) => "kline_channel",
            Self::Doip(_) => "doip_channel",
            Self::Terminal15(_) => "terminal15_channel",
        }
    }

    /// The ECU of the channel, as the policy names it.
    pub(crate) fn target(&self) -> IntentTarget {
        let can = |id: u32, extended| {
            CanId::try_from(id).map_or(IntentTarget::None, |id| IntentTarget::Can { id, extended })
        };
        match self {
            Self::Raw(raw) => raw.request_id.map_or(IntentTarget::None, |id| can(id, None)),
            Self::Isotp(isotp) => can(isotp.request_id, isotp.extended_request_address),
            Self::Tp20(tp20) => IntentTarget::Address(tp20.logical_address),
            Self::Kline(kline) => IntentTarget::Address(Addressing::of(kline.ecu_id).address()),
            Self::Doip(doip) => IntentTarget::Logical(doip.ecu_id),
            Self::Terminal15(_) => IntentTarget::None,
        }
    }

    /// The ECUs that get flow control only: those that the operator lists for the answers to a functional request.
    pub(crate) fn flow_control_targets(&self) -> impl Iterator<Item = IntentTarget> {
        let isotp = if let Self::Isotp(isotp) = self { Some(isotp) } else { None };
        isotp.into_iter().flat_map(|isotp| {
            isotp.response_ids.iter().filter_map(|responder| {
                let ResponderConfig::Pair(pair) = responder else { return None };
                let extended = pair.extended_request_address.or(isotp.extended_request_address);
                Some(IntentTarget::Can { id: CanId::try_from(pair.request_id).ok()?, extended })
            })
        })
    }

    /// How the channel makes its frames, on a bus with or without CAN FD.
    pub(crate) fn framing(&self, is_fd: bool) -> Framing {
        let Self::Isotp(isotp) = self else { return Framing::default() };
        let is_fd = isotp.frame_format.map_or(is_fd, |format| format == FrameFormat::Fd);
        Framing {
            tx_dl: if is_fd { isotp.tx_dl.unwrap_or(LONGEST_TX_DL) } else { 8 },
            padding: isotp.padding_byte.unwrap_or(Framing::default().padding),
            flow_control: [isotp.block_size.unwrap_or(0), isotp.st_min.unwrap_or(0)],
        }
    }

    /// The name of the channel's bus.
    fn bus_name(&self) -> &str {
        match self {
            Self::Raw(raw) => &raw.bus_name,
            Self::Isotp(isotp) => &isotp.bus_name,
            Self::Tp20(tp20) => &tp20.bus_name,
            Self::Kline(kline) => &kline.bus_name,
            Self::Doip(doip) => &doip.bus_name,
            Self::Terminal15(terminal15) => &terminal15.bus_name,
        }
    }

    /// The greatest age of records, in ms, if the configuration of the kind sets it.
    fn max_age_ms(&self) -> Option<u32> {
        match self {
            Self::Raw(raw) => raw.max_age_ms,
            Self::Isotp(isotp) => isotp.options().max_age_ms,
            Self::Tp20(tp20) => tp20.options.max_age_ms,
            Self::Kline(kline) => kline.options.max_age_ms,
            Self::Doip(doip) => doip.options.max_age_ms,
            Self::Terminal15(_) => None,
        }
    }
}

impl ChannelSetup {
    /// Reads the one kind of channel that a request names.
    pub(crate) fn new(request: &OpenChannel) -> Result<Self, Problem> {
        if request.channel == 0 {
            return Err(invalid("A channel's number is 1 to 65535."));
        }
        let OpenChannel { raw_channel, isotp_channel, tp20_channel, kline_channel, doip_channel, .. } =
            request;
        let kinds = [
            raw_channel.clone().map(ChannelKind::Raw),
            isotp_channel.clone().map(ChannelKind::Isotp),
            tp20_channel.clone().map(ChannelKind::Tp20),
            kline_channel.clone().map(ChannelKind::Kline),
            doip_channel.clone().map(ChannelKind::Doip),
            request.terminal15_channel.clone().map(ChannelKind::Terminal15),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let Some(kind) = kinds.next() else {
            return Err(invalid(format!("A channel needs one of the kinds {CHANNEL_KINDS:?}.")));
        };
        if let Some(other) = kinds.next() {
            let (kind, other) = (kind.name(), other.name());
            return Err(invalid(format!("A channel has one kind, not both {kind} and {other}.")));
        }
        let max_age = request.max_age_ms.or(kind.max_age_ms()).map(|ms| Duration::from_millis(u64::from(ms)));
        Ok(Self { bus_name: kind.bus_name().to_owned(), kind, max_age })
    }

    /// The greatest age at which a record may still be sent to the vehicle.
    pub(crate) fn max_age(&self, limits: &RelayLimits) -> Duration {
        let (default, longest) = match self.kind {
            ChannelKind::Raw(_) => (limits.raw_max_age, LONGEST_RAW_MAX_AGE),
            _ => (limits.pdu_max_age, LONGEST_PDU_MAX_AGE),
        };
        self.max_age.unwrap_or(default).min(longest)
    }
}

/// The settings of a PDU channel with these options.
pub(crate) fn pdu_settings(options: &PduOptions) -> PduChannelSettings {
    PduChannelSettings {
        keep_alive: options.keep_alive == Switch::Enabled,
        timing: ResponseTiming {
            p2: options.p2_ms.map_or(DEFAULT_P2, |ms| Duration::from_millis(u64::from(ms))),
            p2_star: options
                .p2_star_ms
                .map_or(DEFAULT_P2_STAR, |ms| Duration::from_millis(u64::from(ms)))
                .max(DEFAULT_P2_STAR),
        },
    }
}
