//! The arguments of `connector-sim vehicle --doip`.

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
use crate::vehicle::simulation::VehicleConfig;
use connector_operator::doip_entity::tls::EntityTls;
use connector_operator::doip_entity::{Answer, Confirmation, EntityConfig, ListenConfig, Timeouts};

/// The gateway to simulate, and its behaviour.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "DoIP")]
pub(crate) struct DoipArgs {
    /// Serve the vehicle over DoIP at this address, such as 0.0.0.0:13400, by TCP and UDP. Port 0 takes a free
    /// one.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    pub(crate) doip: Option<SocketAddr>,
    /// Replay a recorded gateway instead of the vehicle.
    #[arg(long, value_name = "FILE", requires = "doip")]
    doip_recording: Option<PathBuf>,
    /// UDP port for discovery. By default, the same as for TCP.
    #[arg(long, value_name = "PORT", requires = "doip")]
    doip_udp_port: Option<u16>,
    /// Also serve TLS on this port: 3496 in vehicles, 0 for a free one.
    #[arg(long, value_name = "PORT", requires = "doip")]
    doip_tls_port: Option<u16>,
    /// Write the certificate that testers have to trust to this file, as PEM.
    #[arg(long, value_name = "FILE", requires = "doip_tls_port")]
    doip_tls_certificate: Option<PathBuf>,
    /// Refuse routing activation without TLS, with code 0x07.
    #[arg(long, requires = "doip_tls_port")]
    doip_tls_required: bool,
    /// Protocol version: 1, 2 (ISO 13400-2:2012), 3 (2019) or 4 (2019/Amd 1, 2025).
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    doip_version: u8,
    /// Destination of announcements. By default, port 13400 of the subnet's broadcast address.
    #[arg(long, value_name = "ADDR", requires = "doip", value_parser = socket_address)]
    doip_announce_to: Option<SocketAddr>,
    /// Number of announcements at the start, 500 ms apart.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    doip_announcements: u32,
    /// Announce no VIN. The gateway still reports it in response to 22 F190.
    #[arg(long, requires = "doip")]
    doip_no_vin: bool,
    /// Serve the second half of the ECUs behind a second gateway at this address.
    #[arg(long, value_name = "ADDR", requires = "doip", conflicts_with = "doip_recording", value_parser = socket_address)]
    doip_second: Option<SocketAddr>,
    /// Answer every routing activation request with this code, or `never`.
    #[arg(long, value_name = "CODE", value_parser = answer)]
    doip_activation: Option<Answer>,
    /// Serve only the tester with this address; may be repeated. By default, 0x0E00 to 0x0FFF.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    doip_tester: Vec<LogicalAddress>,
    /// Routing activation needs a confirmation in the vehicle, which takes this long.
    #[arg(long, value_name = "MS", requires = "doip")]
    doip_confirm_ms: Option<u64>,
    /// Refuse the confirmation.
    #[arg(long, requires = "doip_confirm_ms")]
    doip_confirm_refused: bool,
    /// Required manufacturer field of routing activation requests. Others are refused for missing authentication
    /// (0x04).
    #[arg(long, value_name = "HEX", value_parser = oem)]
    doip_oem: Option<[u8; 4]>,
    /// Delay of everything that the gateway sends.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    doip_latency_ms: u64,
    /// Time that an ECU takes for an ordinary request. Beyond 50 ms, the ECU sends response pending.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    doip_processing_ms: u64,
    /// Refuse every diagnostic message with this code, such as 0x06.
    #[arg(long, value_name = "CODE", value_parser = byte)]
    doip_nack: Option<u8>,
    /// Acknowledge no diagnostic message.
    #[arg(long)]
    doip_no_ack: bool,
    /// Power mode of the vehicle. SIGUSR1 switches between ready and not ready.
    #[arg(long, value_name = "MODE", default_value = "ready", value_parser = ["ready", "not-ready", "not-supported", "unknown-request"])]
    doip_power_mode: String,
    /// Limit of connections with routing.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    doip_max_sockets: u8,
    /// The longest accepted diagnostic message.
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
    /// Whether the initial power mode is ready.
    pub(crate) fn is_ready(&self) -> bool {
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

    fn apply(&self, entity: &mut EntityConfig) {
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

/// Starts the gateways that the arguments describe; none without `--doip`.
///
/// # Errors
///
/// Returns an error if a file cannot be read or parsed, or if an address cannot be listened on.
pub(crate) async fn serve(
    args: &DoipArgs,
    vehicle: Option<&VehicleConfig>,
) -> anyhow::Result<(Vec<DoipGateway>, Value)> {
    let Some(address) = args.doip else { return Ok((Vec::new(), Value::Null)) };
    let failed = |address: SocketAddr| format!("cannot serve DoIP at {address}");
    let mut gateways = Vec::new();
    if let Some(path) = &args.doip_recording {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let recording = DoipRecording::parse(&text).with_context(|| path.display().to_string())?;
        let gateway = DoipGateway::play(&recording, args.listen(address)?, args.timeouts()).await;
        gateways.push(gateway.with_context(|| failed(address))?);
    } else {
        let mut vehicle = vehicle.context("--vehicles is missing")?.clone();
        vehicle.timing.processing = Duration::from_millis(args.doip_processing_ms);
        let mut config = DoipConfig::new(&vehicle, args.listen(address)?);
        args.apply(&mut config.entity);
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
            gateways.push(DoipGateway::start(&vehicle, config).await.with_context(|| failed(at))?);
        }
    }
    let description = gateways.iter().map(describe).collect();
    Ok((gateways, description))
}

/// The gateway, as the line of JSON describes it.
fn describe(gateway: &DoipGateway) -> Value {
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
    let bytes = connector_operator::hex::parse(text).map_err(|error| error.to_string())?;
    bytes.try_into().map_err(|_| "expected four bytes, such as 01020304".to_owned())
}
