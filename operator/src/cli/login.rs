//! The login, from options or from the line that the sandbox cloud prints.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::CloudArgs;
use super::failure::{Failure, FailureKind};
use crate::client::{Credentials, Operator};

/// The longest line that is read from standard input, in bytes. The line of JSON with the login has a few
/// hundred.
const MAX_LINE: usize = 64 * 1024;

/// The line that `connector-sim cloud` prints when ready.
#[derive(Deserialize)]
struct Ready {
    api_url: String,
    websocket_url: String,
    ca_file: Option<PathBuf>,
    operator: ReadyOperator,
}

#[derive(Deserialize)]
struct ReadyOperator {
    client_id: String,
    client_secret: String,
}

/// Where the cloud is.
pub(super) struct CloudAddress {
    pub(super) api_url: String,
    pub(super) websocket_url: String,
    pub(super) ca_file: Option<PathBuf>,
}

/// The cloud's address, and the operator in the `--ready` file. Options override the values in the file.
fn cloud_address(args: &CloudArgs) -> Result<(CloudAddress, Option<ReadyOperator>), Failure> {
    let ready = args.ready.as_deref().map(read_ready).transpose()?;
    let (known_api, known_websocket, known_ca, operator) = match ready {
        Some(Ready { api_url, websocket_url, ca_file, operator }) => {
            (Some(api_url), Some(websocket_url), ca_file, Some(operator))
        }
        None => (None, None, None, None),
    };
    let address = CloudAddress {
        api_url: given(&args.api_url, known_api, "api-url")?,
        websocket_url: given(&args.websocket_url, known_websocket, "websocket-url")?,
        ca_file: args.ca_file.clone().or(known_ca),
    };
    Ok((address, operator))
}

fn given(given: &Option<String>, known: Option<String>, option: &str) -> Result<String, Failure> {
    given.clone().or(known).ok_or_else(|| {
        let what = format!("--{option} is missing");
        Failure::new(FailureKind::Local, what, format!("use --{option} or --ready FILE"))
    })
}

/// The cloud's address, for a subcommand whose clients log in by themselves.
pub(super) fn address(args: &CloudArgs) -> Result<CloudAddress, Failure> {
    cloud_address(args).map(|(address, _)| address)
}

/// Logs in. Options override the values in the `--ready` file.
pub(super) async fn login(args: &CloudArgs) -> Result<Operator, Failure> {
    let (CloudAddress { api_url, websocket_url, ca_file }, operator) = cloud_address(args)?;
    let (known_id, known_secret) =
        operator.map(|operator| (operator.client_id, operator.client_secret)).unzip();
    let credentials = Credentials {
        client_id: given(&args.client_id, known_id, "client-id")?,
        client_secret: given(&args.client_secret, known_secret, "client-secret")?,
    };
    Ok(Operator::login(&api_url, &websocket_url, ca_file.as_deref(), credentials).await?)
}

fn read_ready(path: &Path) -> Result<Ready, Failure> {
    let local = |what| {
        let advice = "pass a file with the line that `connector-sim cloud` prints";
        Failure::new(FailureKind::Local, what, advice)
    };
    let text = if path == Path::new("-") {
        first_line_of_standard_input()
    } else {
        std::fs::read_to_string(path)
            .map_err(|error| local(format!("cannot read {}: {error}", path.display())))?
    };
    let line = text.lines().find(|line| line.trim_start().starts_with('{')).unwrap_or(&text);
    serde_json::from_str(line).map_err(|error| local(format!("{}: {error}", path.display())))
}

/// Reads one line only, because the cloud does not close its output.
fn first_line_of_standard_input() -> String {
    let bytes = std::io::stdin().lock().bytes().map_while(Result::ok);
    let line: Vec<u8> = bytes.take_while(|byte| *byte != b'\n').take(MAX_LINE).collect();
    String::from_utf8_lossy(&line).into_owned()
}
