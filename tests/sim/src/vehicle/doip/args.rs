//! `connector-sim vehicle --doip`: its arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::config::doip_device::socket_address;
use connector_agent::protocol::doip::{
    ActivationCode, DiagnosticNackCode, LogicalAddress, PowerMode, ProtocolVersion,
};
use serde_json::{Value, json};

use super::gateway::{DoipConfig, DoipGateway};
use super::recording::DoipRecording;
use crate::doip::tls::EntityTls;
use crate::doip::{Answer, Confirmation, EntityConfig, ListenConfig, Timeouts};
use crate::vehicle::VehicleConfig;

/// Which gateway to simulate, and how it behaves.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "DoIP")]
pub struct DoipArgs {
    /// Serves the vehicle over DoIP there, by TCP and UDP, such as 0.0.0.0:13400; port 0 takes any that is free.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub doip: Option<SocketAddr>,
    /// Plays a recorded gateway in place of the vehicle.
    #[arg(long, value_name = "FILE", requires = "doip")]
    doip_recording: Option<PathBuf>,
    /// The port for discovery, if not the same as for TCP.
    #[arg(long, value_name = "PORT", requires = "doip")]
    doip_udp_port: Option<u16>,
    /// Serves TLS on this port too: 3496 in vehicles, 0 for any.
    #[arg(long, value_name = "PORT", requires = "doip")]
    doip_tls_port: Option<u16>,
    /// Writes the certificate that testers have to trust there, as PEM.
    #[arg(long, value_name = "FILE", requires = "doip_tls_port")]
    doip_tls_certificate: Option<PathBuf>,
    /// Refuses routing without TLS, by code 0x07.
    #[arg(long, requires = "doip_tls_port")]
    doip_tls_required: bool,
    /// The edition: 1, 2 (ISO 13400-2:2012) or 3 (2019).
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    doip_version: u8,
    /// Where announcements go, if not to port 13400 of the subnet's broadcast address.
    #[arg(long, value_name = "ADDR", requires = "doip", value_parser = socket_address)]
    doip_announce_to: Option<SocketAddr>,
    /// How many announcements are made at the start, 500 ms apart.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    doip_announcements: u32,
    /// Announces that the VIN is not known; the gateway tells it when asked by 22 F190.
    #[arg(long, requires = "doip")]
    doip_no_vin: bool,
    /// A second gateway of the vehicle there, with the later half of the ECUs.
    #[arg(long, value_name = "ADDR", requires = "doip", conflicts_with = "doip_recording", value_parser = socket_address)]
    doip_second: Option<SocketAddr>,
    /// Answers every request for routing by this code; `never` not at all.
    #[arg(long, value_name = "CODE", value_parser = answer)]
    doip_activation: Option<Answer>,
    /// The testers that are served, in place of 0x0E00 to 0x0FFF; repeated for more.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    doip_tester: Vec<LogicalAddress>,
    /// Routing has to be confirmed in the vehicle first, which takes so long.
    #[arg(long, value_name = "MS", requires = "doip")]
    doip_confirm_ms: Option<u64>,
    /// The confirmation is refused.
    #[arg(long, requires = "doip_confirm_ms")]
    doip_confirm_refused: bool,
    /// What has to be in the manufacturer's field of requests for routing, else authentication is missing (0x04).
    #[arg(long, value_name = "HEX", value_parser = oem)]
    doip_oem: Option<[u8; 4]>,
    /// How long everything takes that the gateway says.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    doip_latency_ms: u64,
    /// How long the ECUs take for an ordinary request; beyond 50 ms they say that they need longer.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    doip_processing_ms: u64,
    /// Refuses every diagnostic message by this code, such as 0x06.
    #[arg(long, value_name = "CODE", value_parser = byte)]
    doip_nack: Option<u8>,
    /// Acknowledges no diagnostic message.
    #[arg(long)]
    doip_no_ack: bool,
    /// Whether the vehicle says that it is ready; SIGUSR1 switches between ready and not ready.
    #[arg(long, value_name = "MODE", default_value = "ready", value_parser = ["ready", "not-ready", "not-supported", "unknown-request"])]
    doip_power_mode: String,
    /// How many connections may have routing.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    doip_max_sockets: u8,
    /// The longest diagnostic message taken, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 0x0010_0000)]
    doip_max_data_size: u32,
    /// T_TCP_Initial_Inactivity.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    doip_initial_inactivity_ms: u64,
    /// T_TCP_General_Inactivity.
    #[arg(long, value_name = "MS", default_value_t = 300_000)]
    doip_general_inactivity_ms: u64,
}

impl DoipArgs {
    /// Whether the vehicle says at first that it is ready.
    pub fn is_ready(&self) -> bool {
        self.doip_power_mode == "ready"
    }

    fn listen(&self, tcp: SocketAddr) -> anyhow::Result<ListenConfig> {
        let mut listen = ListenConfig::new(tcp);
        listen.udp_port = self.doip_udp_port;
        listen.announce_to = self.doip_announce_to;
        if let Some(port) = self.doip_tls_port {
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), tcp.ip().to_string()];
            let tls = EntityTls::self_signed(&names)?;
            if let Some(file) = &self.doip_tls_certificate {
                std::fs::write(file, &tls.certificate)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
            listen.tls = Some((port, tls.config));
        }
        Ok(listen)
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            initial_inactivity: Duration::from_millis(self.doip_initial_inactivity_ms),
            general_inactivity: Duration::from_millis(self.doip_general_inactivity_ms),
            ..Timeouts::default()
        }
    }

    fn describe(&self, entity: &mut EntityConfig) {
        entity.version = ProtocolVersion::from(self.doip_version);
        entity.announcements = self.doip_announcements;
        entity.max_sockets = self.doip_max_sockets;
        entity.max_data_size = Some(self.doip_max_data_size);
        entity.latency = Duration::from_millis(self.doip_latency_ms);
        entity.diagnostic_nack = self.doip_nack.map(DiagnosticNackCode::from);
        entity.no_acknowledgement = self.doip_no_ack;
        entity.power_mode = match self.doip_power_mode.as_str() {
            "ready" => Some(PowerMode::Ready),
            "not-ready" => Some(PowerMode::NotReady),
            "not-supported" => Some(PowerMode::NotSupported),
            _ => None,
        };
        entity.timeouts = self.timeouts();
        let policy = &mut entity.activation;
        policy.answer = self.doip_activation.unwrap_or_default();
        policy.tls_required = self.doip_tls_required;
        policy.oem = self.doip_oem;
        if !self.doip_tester.is_empty() {
            policy.testers = Some(self.doip_tester.clone());
        }
        policy.confirmation = self.doip_confirm_ms.map(|milliseconds| Confirmation {
            after: Duration::from_millis(milliseconds),
            granted: !self.doip_confirm_refused,
        });
    }
}

/// Starts the gateways that the arguments ask for; none without `--doip`.
///
/// # Errors
///
/// A file that can't be read or used, or an address that can't be listened on.
pub async fn serve(
    args: &DoipArgs,
    vehicle: Option<&VehicleConfig>,
) -> anyhow::Result<(Vec<DoipGateway>, Value)> {
    let Some(address) = args.doip else { return Ok((Vec::new(), Value::Null)) };
    let cannot = |address: SocketAddr| format!("cannot serve DoIP at {address}");
    let mut gateways = Vec::new();
    if let Some(path) = &args.doip_recording {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let recording = DoipRecording::parse(&text).with_context(|| path.display().to_string())?;
        let gateway = DoipGateway::play(&recording, args.listen(address)?, args.timeouts()).await;
        gateways.push(gateway.with_context(|| cannot(address))?);
    } else {
        let mut vehicle = vehicle.context("--vehicles is missing")?.clone();
        vehicle.timing.processing = Duration::from_millis(args.doip_processing_ms);
        let mut config = DoipConfig::new(&vehicle, args.listen(address)?);
        args.describe(&mut config.entity);
        if args.doip_no_vin {
            config.forget_vin();
        }
        let second = match args.doip_second {
            Some(second) => {
                let mut listen = args.listen(second)?;
                listen.udp_port = None;
                let (first, second) = config.split(&vehicle, listen);
                config = first;
                Some(second)
            }
            None => None,
        };
        for config in std::iter::once(config).chain(second) {
            let at = config.listen.tcp;
            gateways.push(DoipGateway::start(&vehicle, config).await.with_context(|| cannot(at))?);
        }
    }
    let told = gateways.iter().map(tell).collect();
    Ok((gateways, told))
}

/// What scripts are told of a gateway.
fn tell(gateway: &DoipGateway) -> Value {
    let addresses = gateway.addresses();
    let ecus: Vec<_> = gateway
        .ecus()
        .iter()
        .map(|ecu| {
            json!({
                "ecu": ecu.name,
                "logical_address": ecu.address.to_string(),
                "can": ecu.can.map(|can| can.to_string()),
            })
        })
        .collect();
    json!({
        "tcp": addresses.tcp,
        "udp": addresses.udp,
        "tls": addresses.tls,
        "announce_to": addresses.announce_to,
        "logical_address": gateway.ecus().first().map(|ecu| ecu.address.to_string()),
        "ecus": ecus,
    })
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

fn byte(text: &str) -> Result<u8, String> {
    u8::try_from(number(text)?).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<LogicalAddress, String> {
    LogicalAddress::try_from(number(text)?).map_err(|error| error.to_string())
}

fn answer(text: &str) -> Result<Answer, String> {
    match text {
        "never" => Ok(Answer::Never),
        _ => byte(text).map(|code| Answer::Always(ActivationCode::from(code))),
    }
}

fn oem(text: &str) -> Result<[u8; 4], String> {
    let bytes = crate::vehicle::hex::parse(text).map_err(|error| error.to_string())?;
    bytes.try_into().map_err(|_| "four bytes, such as 01020304".to_owned())
}
