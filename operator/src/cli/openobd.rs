//! The subcommand `openobd-gateway`.

use std::fmt::Display;
use std::path::Path;

use connector_agent::print_line;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{CloudArgs, OpenobdGatewayArgs};
use super::failure::{Failure, FailureKind};
use super::login::{self, CloudAddress};
use crate::openobd::{Answers, OpenobdServer, OpenobdSettings, TlsFiles};

/// Serves scripts until interrupted.
pub(super) async fn openobd_gateway(cloud: &CloudArgs, args: &OpenobdGatewayArgs) -> Result<(), Failure> {
    let CloudAddress { api_url, websocket_url, ca_file } = login::address(cloud)?;
    let (complete_tickets, button) = (args.complete_tickets, args.button);
    let settings = OpenobdSettings { api_url, websocket_url, ca_file, complete_tickets, button };
    let tls = match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    let answers = args.answers.as_deref().map(read_answers).transpose()?;
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return Err(local("cannot receive signals", "try again"));
    };
    let server = OpenobdServer::bind(args.listen, tls.as_ref(), settings, answers).await;
    let server = server.map_err(|error| {
        local(error, "check the address and the files, and that no other program uses the address")
    })?;
    print_line!("{}", json!({"openobd_gateway": server.address(), "tls": tls.is_some()}));
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.run(stop).await.map_err(|error| local(error, "check the certificate and the key"))
}

fn read_answers(path: &Path) -> Result<Answers, Failure> {
    let advice = "write a JSON object with the label of each control and its answer";
    let text = std::fs::read_to_string(path)
        .map_err(|error| local(format!("cannot read {}: {error}", path.display()), advice))?;
    Answers::parse(&text).map_err(|error| local(format!("{}: {error}", path.display()), advice))
}

fn local(what: impl Display, advice: &str) -> Failure {
    Failure::new(FailureKind::Local, what.to_string(), advice)
}
