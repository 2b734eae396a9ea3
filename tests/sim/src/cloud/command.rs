//! `connector-sim cloud`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::server::{Cloud, CloudConfig};

const AFTER_HELP: &str = "What there is, on one TLS port:
  /v1, /v2/connectors, /v2/authenticate, /legacy  the documented customer API
  /v2/tickets, /v2/providers                      the documented partner API
  /oauth2/token                                   refresh tokens and client credentials
  /wssprd                                         the documented websocket, for customers and partners
  /sandbox/ws                                     the relay: connectors and operators
  /sandbox/openapi/customer.json, partner.json    descriptions of both APIs (OpenAPI 3.1)
  /sandbox/v1, /sandbox/v2                        resources of the sandbox's own

The command prints one line of JSON when it is ready: addresses, CA, and the credentials of connector, operator and
customer. docs/sandbox-cloud.md lists every operation.";

/// Run the sandbox cloud: REST, websocket and relay on one TLS port.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Address to listen on, such as 127.0.0.1:8443. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Directory of the database and the certificate authority. Created if it does not exist.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// JSON list of connectors: {uuid, pincode, id?, hardware_type?, product_description?, has_wifi?,
    /// supports_doip?, software_version?, hardware_version?, vehicle_path_string?, otp?}.
    #[arg(long, value_name = "FILE")]
    connectors: Option<PathBuf>,
    /// Lifetime of access tokens.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    token_lifetime: u64,
    /// Time that a connection outlives a lost link.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=300))]
    hold_seconds: u64,
    /// Vehicles, products, prices and companies, as JSON or TOML. A part that the file leaves out is that of the default,
    /// which is made from the vehicles of the simulators.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Close every websocket after this time, as gateways do (two hours: 7200).
    #[arg(long, value_name = "SECONDS")]
    socket_lifetime: Option<u64>,
    /// Close a websocket whose client has sent nothing for this time, as gateways do (ten minutes: 600).
    #[arg(long, value_name = "SECONDS")]
    socket_idle: Option<u64>,
    /// CA certificates (PEM) of the clients. Each client then needs a certificate (mutual TLS).
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
}

/// Runs the sandbox cloud until SIGINT or SIGTERM.
///
/// # Errors
///
/// Returns an error if the address, the state directory or the connectors file cannot be used.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let connectors = match &args.connectors {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a list of connectors", file.display()))?
        }
        None => Vec::new(),
    };
    let cloud = Cloud::start(CloudConfig {
        listen: args.listen,
        state: args.state,
        connectors,
        token_lifetime: Duration::from_secs(args.token_lifetime),
        hold: Duration::from_secs(args.hold_seconds),
        client_ca: args.client_ca,
        catalogue: args.catalogue,
        socket_lifetime: args.socket_lifetime.map(Duration::from_secs),
        socket_idle: args.socket_idle.map(Duration::from_secs),
    })
    .await?;
    // before the ready line, after which a signal may arrive
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tracing::warn!("this is a sandbox: it prints its secrets, and its data is generated");
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", cloud.ready_line())
        .and_then(|()| stdout.flush())
        .context("cannot print the ready line")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("shutting down");
    cloud.shutdown().await;
    Ok(())
}
