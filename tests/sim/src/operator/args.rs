//! `connector-sim operator`: its arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use connector_agent::config::doip_device::socket_address;
use connector_agent::protocol::doip::LogicalAddress;
use connector_hal::can::CanId;

use super::failure::EXIT_CODES;
use super::gateway::parse_ecu;
use crate::vehicle::catalogue::EcuAddress;

/// `connector-sim operator`.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub(super) cloud: CloudArgs,
    #[command(flatten)]
    pub(super) ticket: TicketArgs,
    #[command(flatten)]
    pub(super) bus: BusArgs,
    #[command(flatten)]
    pub(super) ecu: EcuArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Cloud")]
pub(super) struct CloudArgs {
    /// The JSON line that `connector-sim cloud` prints, as a file; - is standard input. In place of the five below.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) ready: Option<PathBuf>,
    /// Base of the REST API, such as https://127.0.0.1:8443.
    #[arg(long, value_name = "URL", global = true)]
    pub(super) api_url: Option<String>,
    /// The websocket, such as wss://127.0.0.1:8443/ws.
    #[arg(long, value_name = "URL", global = true)]
    pub(super) websocket_url: Option<String>,
    /// Certificates to trust (PEM); without it, those that web browsers trust.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) ca_file: Option<PathBuf>,
    /// The operator's client id.
    #[arg(long, value_name = "ID", global = true)]
    pub(super) client_id: Option<String>,
    /// The operator's client secret; better in the environment than on the command line.
    #[arg(
        long,
        value_name = "SECRET",
        env = "CONNECTOR_OPERATOR_SECRET",
        hide_env_values = true,
        global = true
    )]
    pub(super) client_secret: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Ticket")]
pub(super) struct TicketArgs {
    /// Id or number of the ticket. Without --ticket and --vin there must be just one.
    #[arg(long, value_name = "ID", global = true)]
    pub(super) ticket: Option<String>,
    /// The VIN of the ticket's vehicle.
    #[arg(long, value_name = "VIN", global = true)]
    pub(super) vin: Option<String>,
    /// What this operator is called on the ticket.
    #[arg(long, value_name = "NAME", default_value = "connector-sim", global = true)]
    pub(super) operator_id: String,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Bus")]
pub(super) struct BusArgs {
    /// Pins of the OBD connector: CAN high, CAN low.
    #[arg(long, value_name = "HIGH,LOW", default_value = "6,14", value_parser = pins, global = true)]
    pub(super) pins: (u8, u8),
    /// The bus's bit rate, in bit/s.
    #[arg(long, value_name = "BIT/S", default_value_t = 500_000, global = true)]
    pub(super) bit_rate: u32,
    /// The data phase's bit rate, in bit/s; makes it CAN FD.
    #[arg(long, value_name = "BIT/S", global = true)]
    pub(super) data_bit_rate: Option<u32>,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "ECU")]
pub(super) struct EcuArgs {
    /// The identifier that the ECU listens to; 0x7DF and 0x18DB33F1 ask all of them.
    #[arg(long, value_name = "CAN-ID", default_value = "0x7E0", value_parser = identifier, global = true)]
    pub(super) request_id: CanId,
    /// The identifier that it answers with; known for 0x7E0…0x7E7 and 0x18DAxxF1.
    #[arg(long, value_name = "CAN-ID", value_parser = identifier, global = true)]
    pub(super) response_id: Option<CanId>,
    /// The address byte in front of each frame's data, where ECUs share identifiers.
    #[arg(long, value_name = "BYTE", value_parser = byte, global = true)]
    pub(super) extended_address: Option<u8>,
    /// How long the ECU may take for its first response.
    #[arg(long, value_name = "MS", default_value_t = 1000, global = true)]
    pub(super) p2_ms: u32,
}

impl EcuArgs {
    pub(super) fn p2(&self) -> Duration {
        Duration::from_millis(u64::from(self.p2_ms))
    }

    /// Whether all ECUs are asked, not one.
    pub(super) fn is_functional(&self) -> bool {
        self.response_id.is_none() && matches!(self.request_id.to_socketcan(), 0x7DF | 0x98DB_33F1)
    }

    /// The identifier that the ECU answers with, given or as the standards have it.
    pub(super) fn response(&self) -> Option<CanId> {
        self.response_id.or_else(|| {
            let request = self.request_id.raw();
            match (self.request_id.is_extended(), request) {
                (false, 0x7E0..=0x7E7) => CanId::standard(request + 8).ok(),
                (true, 0x18DA_0000..=0x18DA_FFFF) if request & 0xFF == 0xF1 => {
                    CanId::extended(0x18DA_F100 | (request >> 8 & 0xFF)).ok()
                }
                _ => None,
            }
        })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the tickets that wait for an operator or are in progress.
    Tickets,
    /// Joins a ticket; the other subcommands do so by themselves.
    Join,
    /// Sends a request and prints who answers what.
    Read {
        /// The request's bytes, such as 22F190.
        #[arg(value_name = "HEX", value_parser = hex)]
        request: Hex,
    },
    /// Has the connector read the VIN.
    Vin,
    /// Lists the stored trouble codes.
    Dtcs,
    /// Programs the ECU, by the simulated ECUs' security access.
    Flash {
        /// The firmware's bytes.
        file: PathBuf,
        /// Where they go in the ECU's memory.
        #[arg(long, value_name = "ADDRESS", default_value = "0x08000000", value_parser = number)]
        address: u32,
    },
    /// Prints the bus's frames as candump -L does, until interrupted.
    Dump {
        /// How long.
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
    /// Shows the remote ECUs to CAN tools on this machine, behind an SLCAN adapter, until interrupted. Prints a line of
    /// JSON when it is ready.
    CanGateway(CanGatewayArgs),
    /// Stands for the remote vehicle as a DoIP entity on this machine, for DoIP tools, until interrupted. Prints a line
    /// of JSON when it is ready.
    DoipGateway(DoipGatewayArgs),
    /// Completes the ticket in progress, which closes its connection.
    Complete,
    /// Cancels the ticket in progress, which closes its connection.
    Cancel {
        /// Why.
        #[arg(long, default_value = "cancelled by the operator")]
        reason: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct CanGatewayArgs {
    /// Where the SLCAN adapter appears: a link to a pseudo-terminal, removed at the end.
    #[arg(long, value_name = "PATH")]
    pub(super) slcan: PathBuf,
    /// An ECU to show, by request and response identifier and address byte; repeated for more. Without any, those of
    /// the OBD standard: 7E0/7E8 to 7E7/7EF.
    #[arg(long, value_name = "7E0/7E8[/0F]", value_parser = parse_ecu)]
    pub(super) ecu: Vec<EcuAddress>,
    /// Another identifier by which the tool asks all ECUs, besides 0x7DF and 0x18DB33F1.
    #[arg(long, value_name = "CAN-ID", value_parser = identifier)]
    pub(super) functional_id: Vec<CanId>,
    #[command(flatten)]
    pub(super) cover: CoverArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DoipGatewayArgs {
    /// Where the entity listens, by TCP and UDP, such as 192.168.7.1:13400; port 0 takes any that is free.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(super) listen: SocketAddr,
    /// The port for discovery, if not the same as for TCP.
    #[arg(long, value_name = "PORT")]
    pub(super) udp_port: Option<u16>,
    /// Serves TLS on this port too: 3496 in vehicles, 0 for any.
    #[arg(long, value_name = "PORT")]
    pub(super) tls_port: Option<u16>,
    /// Writes the certificate that tools have to trust there, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// Where announcements go, if not to port 13400 of the subnet's broadcast address.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(super) announce_to: Option<SocketAddr>,
    /// How the remote vehicle is reached.
    #[arg(long, value_enum, default_value_t = Over::Doip)]
    pub(super) over: Over,
    /// The remote gateway's logical address, which the entity takes too. Without it, what the connector heard
    /// announced, or else 0x4010.
    #[arg(long, value_name = "ADDRESS", value_parser = logical_address)]
    pub(super) gateway_id: Option<LogicalAddress>,
    /// The edition of ISO 13400-2: 2 (2012) or 3 (2019).
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub(super) doip_version: u8,
    /// Over DoIP, the pins: 1 is 1 and 9, 2 is 3 and 11.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) doip_option: u8,
    /// Over DoIP, how the connector sets up its network: a number of its configuration's table.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) network_configuration: u8,
    /// Over CAN, the ECUs at the addresses after the entity's own, in this order; repeated for more. Without any,
    /// those of the OBD standard.
    #[arg(long, value_name = "7E0/7E8[/0F]", value_parser = parse_ecu)]
    pub(super) ecu: Vec<EcuAddress>,
    #[command(flatten)]
    pub(super) cover: CoverArgs,
}

/// How a remote vehicle is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    /// By its own DoIP gateway.
    Doip,
    /// By ISO-TP on CAN.
    Can,
}

fn logical_address(text: &str) -> Result<LogicalAddress, String> {
    LogicalAddress::try_from(number(text)?).map_err(|error| error.to_string())
}

/// How a gateway covers the time that the network takes.
#[derive(Debug, ClapArgs)]
pub(super) struct CoverArgs {
    /// How long the tool waits for a first response; after a fifth of it, it is told that the ECU needs longer.
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=600_000))]
    pub(super) tool_p2_ms: u32,
    /// How long the tool waits after it was told so.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=600_000))]
    pub(super) tool_p2_star_ms: u32,
    /// Leaves keeping the ECUs' sessions to the tool, also while the link is lost.
    #[arg(long)]
    pub(super) no_keep_alive: bool,
}

/// The bytes of a request; a type of its own, because clap takes a `Vec` for a repeated argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hex(pub(super) Vec<u8>);

fn hex(text: &str) -> Result<Hex, String> {
    let digits: String = text.chars().filter(|character| !matches!(character, ' ' | ':' | '_')).collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    match crate::vehicle::hex::parse(digits) {
        Ok(bytes) if bytes.is_empty() => Err("a request has at least one byte".to_owned()),
        Ok(bytes) => Ok(Hex(bytes)),
        Err(error) => Err(error.to_string()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

fn identifier(text: &str) -> Result<CanId, String> {
    CanId::try_from(number(text)?).map_err(|error| error.to_string())
}

fn byte(text: &str) -> Result<u8, String> {
    u8::try_from(number(text)?).map_err(|error| error.to_string())
}

fn pins(text: &str) -> Result<(u8, u8), String> {
    let pins = text.split_once(',').and_then(|(high, low)| {
        let pin = |text: &str| text.trim().parse().ok().filter(|pin| (1..=16).contains(pin));
        Some((pin(high)?, pin(low)?))
    });
    pins.ok_or_else(|| "two pins from 1 to 16, such as 6,14".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.args)
    }

    #[test]
    fn options_stand_before_or_behind_the_subcommand() {
        for line in ["operator --request-id 0x7e1 read 22F190", "operator read 22:f1:90 --request-id 2017"] {
            let args = parse(line).unwrap();
            assert_eq!(args.ecu.request_id, CanId::standard(0x7E1).unwrap());
            assert_eq!(args.ecu.response(), CanId::standard(0x7E9).ok());
            assert!(
                matches!(args.command, Command::Read { request } if request == Hex(vec![0x22, 0xF1, 0x90]))
            );
        }
    }

    #[test]
    fn responders_are_known_by_the_standards_and_functional_identifiers_have_none() {
        let ecu = |id: &str| parse(&format!("operator --request-id {id} vin")).unwrap().ecu;
        assert_eq!(ecu("0x18DA10F1").response(), CanId::extended(0x18DA_F110).ok());
        assert_eq!(ecu("0x750").response(), None);
        assert!(ecu("0x7DF").is_functional());
        assert!(ecu("0x18DB33F1").is_functional());
        assert!(!ecu("0x7E0").is_functional());
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "operator read 2",
            "operator read",
            "operator --pins 6 vin",
            "operator --pins 6,17 vin",
            "operator --request-id 0x20000000 vin",
            "operator --extended-address 256 vin",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
