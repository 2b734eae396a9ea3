//! The arguments of `connector-operator`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use connector_agent::config::doip_device::socket_address;
use connector_agent::protocol::doip::LogicalAddress;
use connector_agent::relay::wire::request::{BusConfig, CanBusConfig};
use connector_hal::can::CanId;

use super::failure::EXIT_CODES;
use super::values::{Hex, byte, hex, identifier, logical_address, number, pins};
use crate::client::is_obd_functional;
use crate::ecu_address::EcuAddress;

/// Remote diagnostics of a vehicle: lists and joins tickets, reads, programs, and connects diagnostic tools.
#[derive(Debug, Parser)]
#[command(name = "connector-operator", version = connector_agent::cli::VERSION, after_help = EXIT_CODES)]
pub struct Cli {
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Cloud")]
pub(super) struct CloudArgs {
    /// A file with the JSON line that `connector-sim cloud` prints, in place of the five options below; -
    /// reads standard input.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) ready: Option<PathBuf>,
    /// The base URL of the REST API, such as https://127.0.0.1:8443.
    #[arg(long, value_name = "URL", global = true)]
    pub(super) api_url: Option<String>,
    /// The URL of the websocket, such as wss://127.0.0.1:8443/sandbox/ws.
    #[arg(long, value_name = "URL", global = true)]
    pub(super) websocket_url: Option<String>,
    /// The root certificates to trust (PEM). By default, those that web browsers trust.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) ca_file: Option<PathBuf>,
    /// The operator's client id.
    #[arg(long, value_name = "ID", global = true)]
    pub(super) client_id: Option<String>,
    /// The operator's client secret. Prefer the environment variable: other users can see the command line.
    #[arg(
        long,
        value_name = "SECRET",
        env = "CONNECTOR_OPERATOR_SECRET",
        hide_env_values = true,
        global = true
    )]
    pub(super) client_secret: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Ticket")]
pub(super) struct TicketArgs {
    /// The id or number of the ticket. Not needed if there is only one.
    #[arg(long, value_name = "ID", global = true)]
    pub(super) ticket: Option<String>,
    /// Select the ticket by the VIN of its vehicle.
    #[arg(long, value_name = "VIN", global = true)]
    pub(super) vin: Option<String>,
    /// The operator's name on the ticket.
    #[arg(long, value_name = "NAME", default_value = "connector-operator", global = true)]
    pub(super) operator_id: String,
    /// Take the connection over from another operator who has joined it.
    #[arg(long, global = true)]
    pub(super) take_over: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bus")]
pub(super) struct BusArgs {
    /// The pins of CAN high and CAN low at the OBD connector.
    #[arg(long, value_name = "HIGH,LOW", default_value = "6,14", value_parser = pins, global = true)]
    pub(super) pins: (u8, u8),
    /// The bit rate of the bus, in bit/s.
    #[arg(long, value_name = "BIT/S", default_value_t = 500_000, global = true)]
    pub(super) bit_rate: u32,
    /// The bit rate of the data phase, in bit/s. Selects CAN FD.
    #[arg(long, value_name = "BIT/S", global = true)]
    pub(super) data_bit_rate: Option<u32>,
}

impl BusArgs {
    /// The configuration of the bus, under this name.
    pub(super) fn config(&self, name: &str) -> BusConfig {
        let (pin_plus, pin_min) = self.pins;
        let can_bus = CanBusConfig {
            pin_plus,
            pin_min,
            can_protocol: "isotp".to_owned(),
            can_bit_rate: self.bit_rate,
            transceiver: None,
            data_bit_rate: self.data_bit_rate,
            verify: true,
        };
        BusConfig { bus_name: name.to_owned(), can_bus: Some(can_bus), ..BusConfig::default() }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "ECU")]
pub(super) struct EcuArgs {
    /// The identifier of requests to the ECU. 0x7DF and 0x18DB33F1 address all ECUs.
    #[arg(long, value_name = "CAN-ID", default_value = "0x7E0", value_parser = identifier, global = true)]
    pub(super) request_id: CanId,
    /// The identifier of the ECU's responses. Not needed for requests to 0x7E0…0x7E7 and 0x18DAxxF1.
    #[arg(long, value_name = "CAN-ID", value_parser = identifier, global = true)]
    pub(super) response_id: Option<CanId>,
    /// The address byte before each frame's data, if several ECUs share the identifiers.
    #[arg(long, value_name = "BYTE", value_parser = byte, global = true)]
    pub(super) extended_address: Option<u8>,
    /// The longest time to the ECU's first response (P2).
    #[arg(long, value_name = "MS", default_value_t = 1000, global = true)]
    pub(super) p2_ms: u32,
}

impl EcuArgs {
    pub(super) fn p2(&self) -> Duration {
        Duration::from_millis(u64::from(self.p2_ms))
    }

    /// Whether the request addresses all ECUs.
    pub(super) fn is_functional(&self) -> bool {
        self.response_id.is_none() && is_obd_functional(self.request_id)
    }

    /// The identifier of the ECU's responses: the given one, or the one that the standards assign.
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
    /// List the tickets that are pending or in progress.
    Tickets,
    /// Join a ticket. Subcommands that need the vehicle join the ticket by themselves.
    Join,
    /// Send a request, and print each response with its sender.
    Read {
        /// The bytes of the request, such as 22F190.
        #[arg(value_name = "HEX", value_parser = hex)]
        request: Hex,
    },
    /// Read the VIN.
    Vin,
    /// List the stored trouble codes.
    Dtcs,
    /// Program the ECU. The security access is the one of the simulated ECUs.
    Flash {
        /// The file with the firmware.
        file: PathBuf,
        /// The address of the firmware in the ECU's memory.
        #[arg(long, value_name = "ADDRESS", default_value = "0x08000000", value_parser = number)]
        address: u32,
        /// Ask the person at the vehicle for consent first, and wait for it.
        #[arg(long)]
        ask_consent: bool,
    },
    /// Ask the person at the vehicle for consent, and wait for it.
    Consent {
        /// The requests to consent to.
        #[arg(value_enum, default_value_t = ConsentClass::Programming)]
        class: ConsentClass,
        /// What you want to do, for the connector's log.
        #[arg(long, default_value = "")]
        text: String,
    },
    /// Print the frames on the bus in the format of candump -L, until interrupted.
    Dump {
        /// Stop after this many seconds.
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
    /// Present the remote ECUs to CAN tools on this machine, through an SLCAN adapter, until interrupted.
    /// Prints a line of JSON when ready.
    CanGateway(CanGatewayArgs),
    /// Present the remote vehicle to DoIP tools as a DoIP entity on this machine, until interrupted. Prints a
    /// line of JSON when ready.
    DoipGateway(DoipGatewayArgs),
    /// Serve scripts of the vendor's client openobd on this machine, until interrupted. The scripts choose the
    /// ticket and log in by themselves. Prints a line of JSON when ready.
    #[cfg(feature = "openobd")]
    OpenobdGateway(OpenobdGatewayArgs),
    /// Complete the ticket in progress, which closes its connection.
    Complete,
    /// Cancel the ticket in progress, which closes its connection.
    Cancel {
        /// The reason.
        #[arg(long, default_value = "cancelled by the operator")]
        reason: String,
    },
    /// Print the completion script for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// The classes of requests for which consent can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ConsentClass {
    /// Requests that change what an ECU stores or does.
    Intrusive,
    /// Requests that replace the software of an ECU.
    Programming,
    /// Raw frames that are no diagnostics.
    Bus,
    /// A search for all ECUs.
    Scan,
}

impl ConsentClass {
    /// The word of the relay protocol.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Intrusive => "intrusive",
            Self::Programming => "programming",
            Self::Bus => "bus",
            Self::Scan => "scan",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CanGatewayArgs {
    /// The path of the SLCAN adapter: a link to a pseudo-terminal, which is removed at the end.
    #[arg(long, value_name = "PATH")]
    pub(super) slcan: PathBuf,
    /// An ECU to present: request identifier, response identifier and address byte. Can be repeated. By
    /// default, the ECUs of the OBD standard: 7E0/7E8 to 7E7/7EF.
    #[arg(long, value_name = "7E0/7E8[/0F]")]
    pub(super) ecu: Vec<EcuAddress>,
    /// A functional identifier that the tool uses besides 0x7DF and 0x18DB33F1. Can be repeated.
    #[arg(long, value_name = "CAN-ID", value_parser = identifier)]
    pub(super) functional_id: Vec<CanId>,
    #[command(flatten)]
    pub(super) cover: CoverArgs,
}

#[derive(Debug, Args)]
pub(super) struct DoipGatewayArgs {
    /// The address for TCP and UDP, such as 192.168.7.1:13400. Port 0 selects a free port.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(super) listen: SocketAddr,
    /// The UDP port for discovery. By default, the TCP port.
    #[arg(long, value_name = "PORT")]
    pub(super) udp_port: Option<u16>,
    /// Serve TLS on this port too. Vehicles use 3496; 0 selects a free port.
    #[arg(long, value_name = "PORT")]
    pub(super) tls_port: Option<u16>,
    /// Write the certificate that tools have to trust to this file (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// The destination of announcements. By default, port 13400 of the subnet's broadcast address.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(super) announce_to: Option<SocketAddr>,
    /// How the connector reaches the remote vehicle.
    #[arg(long, value_enum, default_value_t = Over::Doip)]
    pub(super) over: Over,
    /// The logical address of the remote gateway and of the entity. By default, the address that the vehicle
    /// announced to the connector, or else 0x4010.
    #[arg(long, value_name = "ADDRESS", value_parser = logical_address)]
    pub(super) gateway_id: Option<LogicalAddress>,
    /// The edition of ISO 13400-2: 2 (2012), 3 (2019) or 4 (2019/Amd 1, 2025).
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=4))]
    pub(super) doip_version: u8,
    /// The Ethernet pins, with --over doip: 1 for pins 1 and 9, 2 for pins 3 and 11.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) doip_option: u8,
    /// The network configuration, with --over doip: a number of the table in the connector's configuration.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) network_configuration: u8,
    /// An ECU on CAN, with --over can. Can be repeated; the ECUs take the logical addresses after the
    /// entity's, in this order. By default, the ECUs of the OBD standard.
    #[arg(long, value_name = "7E0/7E8[/0F]")]
    pub(super) ecu: Vec<EcuAddress>,
    #[command(flatten)]
    pub(super) cover: CoverArgs,
}

#[cfg(feature = "openobd")]
#[derive(Debug, Args)]
pub(super) struct OpenobdGatewayArgs {
    /// The address for gRPC. Any address but a loopback one needs TLS. Port 0 selects a free port.
    #[arg(long, value_name = "ADDR", value_parser = socket_address, default_value = "127.0.0.1:50051")]
    pub(super) listen: SocketAddr,
    /// The server's certificate (PEM). The client uses TLS if its port is 443; its host may have another port.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(super) tls_key: Option<PathBuf>,
    /// Answer what scripts ask their user from this file: a JSON object with labels and answers. By default, the
    /// person at the terminal answers.
    #[arg(long, value_name = "FILE")]
    pub(super) answers: Option<PathBuf>,
    /// Complete the ticket when a script finishes its session with success.
    #[arg(long)]
    pub(super) complete_tickets: bool,
    /// Let the mechanic at the vehicle continue scripts with the connector's button. A press answers a control of the
    /// kind Continue for the user that has no answer in the file.
    #[arg(long)]
    pub(super) button: bool,
}

/// How the connector reaches the remote vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    /// Through the vehicle's DoIP gateway.
    Doip,
    /// With ISO-TP on CAN.
    Can,
}

/// How a gateway covers the delay of the network.
#[derive(Debug, Args)]
pub(super) struct CoverArgs {
    /// How long the tool waits for a first response. After a fifth of this time, the gateway answers
    /// "response pending".
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=600_000))]
    pub(super) tool_p2_ms: u32,
    /// How long the tool waits after a "response pending".
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=600_000))]
    pub(super) tool_p2_star_ms: u32,
    /// Do not keep the ECUs' sessions alive. By default, the connector does so, also while a link is lost.
    #[arg(long)]
    pub(super) no_keep_alive: bool,
}

#[cfg(test)]
mod tests {
    use super::super::values::Hex;
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn options_stand_before_or_after_the_subcommand() {
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
    fn responders_follow_the_standards_and_functional_ids_have_none() {
        let ecu = |id: &str| parse(&format!("operator --request-id {id} vin")).unwrap().ecu;
        assert_eq!(ecu("0x18DA10F1").response(), CanId::extended(0x18DA_F110).ok());
        assert_eq!(ecu("0x750").response(), None);
        assert!(ecu("0x7DF").is_functional());
        assert!(ecu("0x18DB33F1").is_functional());
        assert!(!ecu("0x7E0").is_functional());
    }

    #[test]
    fn invalid_arguments_are_refused() {
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
