//! Checks the configuration of CAN buses and their channels. Errors list the ports and values that are
//! supported.

use std::time::Instant;

use connector_hal::can::{CanSettings, kernel_max_pdu};

use crate::config::CAN_BIT_RATES;
use crate::config::{CanPort, IsotpStack};
use crate::protocol::isotp::{
    Addressing, Config, DEFAULT_MAX_ANSWER, Endpoint, FrameSize, FunctionalConfig, FunctionalEndpoint,
    Padding, SeparationTime,
};
use crate::protocol::problem::Problem;
use crate::relay::buses::can::channels::held::WINDOW;
use crate::relay::buses::can::responders;
use crate::relay::buses::channel_setup::{
    ChannelKind, can_id, invalid, pdu_settings, unknown_pins, unsupported, wrong_kind,
};
use crate::relay::channel::{CanChannel, KernelIsotp, PduChannel, RawChannel};
use crate::relay::wire::request::{CanBusConfig, FrameFormat, IsotpChannelConfig, PaddingConfig};
use crate::vehicle::hardware::Hardware;

/// The padding byte of a channel that states none (relay protocol, section 3; ISO 15765-2, 10.4.2.1).
const DEFAULT_PADDING_BYTE: u8 = 0xCC;

/// TX_DL of a channel of FD frames that states none, in bytes: the longest that CAN FD has.
const LONGEST_TX_DL: u8 = 64;

/// A CAN bus that an operator requested, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CanBusSetup {
    pub(crate) name: String,
    pub(crate) port: CanPort,
    pub(crate) settings: CanSettings,
    /// Whether to listen before the adapter goes active.
    pub(crate) verify: bool,
}

impl CanBusSetup {
    /// Checks the configuration of a bus against the hardware.
    pub(crate) fn new(name: &str, can: &CanBusConfig, hardware: &Hardware) -> Result<Self, Problem> {
        let port = find_port(name, can, hardware)?;
        check_rates(name, can, port)?;
        let settings =
            CanSettings { bit_rate: can.can_bit_rate, data_bit_rate: can.data_bit_rate, listen_only: false };
        Ok(Self { name: name.to_owned(), port: port.clone(), settings, verify: can.verify })
    }
}

/// A channel that an operator requested on this bus. It uses this ISO-TP stack if its settings allow it.
pub(super) fn channel_of(
    bus_name: &str,
    kind: &ChannelKind,
    is_fd: bool,
    max_pdu: usize,
    stack: IsotpStack,
    now: Instant,
) -> Result<CanChannel, Problem> {
    match kind {
        ChannelKind::Raw(raw) => {
            let request = raw.request_id.map(|id| can_id("request_id", id)).transpose()?;
            let response = raw.response_id.map(|id| can_id("response_id", id)).transpose()?;
            Ok(CanChannel::Raw(RawChannel::new(request, response, is_fd)))
        }
        ChannelKind::Isotp(isotp) => isotp_channel(isotp, is_fd, max_pdu, stack, now),
        other => Err(wrong_kind(bus_name, "can_bus", other)),
    }
}

fn find_port<'a>(name: &str, can: &CanBusConfig, hardware: &'a Hardware) -> Result<&'a CanPort, Problem> {
    let pins = [can.pin_plus, can.pin_min];
    hardware.can_ports.iter().find(|port| port.pins == pins).ok_or_else(|| {
        let has: Vec<_> =
            hardware.can_ports.iter().map(|port| format!("{} and {}", port.pins[0], port.pins[1])).collect();
        let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
        let [plus, minus] = pins;
        let detail =
            format!("Bus {name:?}: no CAN bus is at pins {plus} and {minus}; this connector has: {has}.");
        unknown_pins(detail)
    })
}

fn check_rates(name: &str, can: &CanBusConfig, port: &CanPort) -> Result<(), Problem> {
    match can.can_protocol.as_str() {
        "isotp" | "tp20" | "frames" => {}
        other => {
            return Err(invalid(format!(
                "Bus {name:?}: can_protocol {other:?} is not one of isotp, tp20, frames."
            )));
        }
    }
    if !CAN_BIT_RATES.contains(&can.can_bit_rate) {
        let rate = can.can_bit_rate;
        return Err(invalid(format!("Bus {name:?}: can_bit_rate {rate} is not one of {CAN_BIT_RATES:?}.")));
    }
    if let Some(transceiver) = can.transceiver.as_deref().filter(|transceiver| *transceiver != "high") {
        let detail =
            format!("Bus {name:?}: this connector has high-speed transceivers only, not {transceiver:?}.");
        return Err(unsupported(detail));
    }
    match can.data_bit_rate {
        Some(_) if !port.fd => Err(unsupported(format!(
            "Bus {name:?}: the adapter at pins {} and {} does not support CAN FD.",
            port.pins[0], port.pins[1]
        ))),
        Some(rate) if rate < can.can_bit_rate || rate > 8_000_000 => Err(invalid(format!(
            "Bus {name:?}: data_bit_rate {rate} is not between can_bit_rate and 8000000."
        ))),
        _ => Ok(()),
    }
}

fn isotp_channel(
    config: &IsotpChannelConfig,
    is_fd: bool,
    max_pdu: usize,
    stack: IsotpStack,
    now: Instant,
) -> Result<CanChannel, Problem> {
    let settings = pdu_settings(&config.options());
    let own = |transport| CanChannel::Pdu(Box::new(PduChannel::new(transport, settings, now)));
    let request = can_id("request_id", config.request_id)?;
    let byte = config.padding_byte.unwrap_or(DEFAULT_PADDING_BYTE);
    let padding = match config.padding {
        PaddingConfig::Enabled | PaddingConfig::TowardEcu => Padding::Enabled(byte),
        PaddingConfig::Disabled | PaddingConfig::FromEcu => Padding::Disabled,
        PaddingConfig::Detection => Padding::Detection(byte),
    };
    let frame_size = frame_size(config, is_fd)?;
    let block_size = config.block_size.unwrap_or(0);
    let st_min = SeparationTime(config.st_min.unwrap_or(0));
    if let Some(response) = config.response_id {
        let response = can_id("response_id", response)?;
        let addressing = match (config.extended_request_address, config.extended_response_address) {
            (None, None) => Addressing::normal(request, response),
            (Some(to), Some(from)) => Addressing::extended(request, response, to, from),
            (Some(to), None) => Addressing::extended(request, response, to, to),
            (None, Some(_)) => {
                return Err(invalid("extended_response_address needs an extended_request_address."));
            }
        };
        let config = Config {
            window: WINDOW,
            frame_size,
            padding,
            block_size,
            st_min,
            max_pdu,
            ..Config::new(addressing)
        };
        let kernel = match stack {
            // its sockets receive either classic or FD frames, and an ECU of an FD bus may send both
            IsotpStack::Kernel if is_fd => {
                tracing::info!(
                    "a bus with CAN FD: the channel uses the agent's own ISO-TP, not the kernel's"
                );
                None
            }
            IsotpStack::Kernel => KernelIsotp::new(&config, kernel_max_pdu()),
            IsotpStack::Auto | IsotpStack::Own => None,
        };
        return Ok(match kernel {
            Some(kernel) => CanChannel::Kernel(Box::new(PduChannel::new(Box::new(kernel), settings, now))),
            None => own(Box::new(Endpoint::new(config))),
        });
    }
    let mut functional = FunctionalConfig::new(request, responders::responders(request, config)?);
    functional.transmit_address = config.extended_request_address;
    functional.receive_address = config.extended_response_address.or(config.extended_request_address);
    functional.frame_size = frame_size;
    functional.padding = padding;
    functional.block_size = block_size;
    functional.st_min = st_min;
    functional.max_pdu = max_pdu.min(DEFAULT_MAX_ANSWER);
    Ok(own(Box::new(FunctionalEndpoint::new(functional))))
}

/// The frames to the ECU.
fn frame_size(config: &IsotpChannelConfig, is_fd: bool) -> Result<FrameSize, Problem> {
    let default = if is_fd { FrameFormat::Fd } else { FrameFormat::Classic };
    match config.frame_format.unwrap_or(default) {
        FrameFormat::Fd if !is_fd => Err(invalid("frame_format \"fd\" needs a bus with a data_bit_rate.")),
        FrameFormat::Fd => {
            let tx_dl = config.tx_dl.unwrap_or(LONGEST_TX_DL);
            FrameSize::fd(tx_dl, true).map_err(|error| invalid(format!("tx_dl: {error}.")))
        }
        FrameFormat::Classic => match config.tx_dl {
            None | Some(8) => Ok(FrameSize::Classic),
            Some(tx_dl) => {
                Err(invalid(format!("tx_dl {tx_dl} needs FD frames; classic frames have 8 bytes.")))
            }
        },
    }
}
