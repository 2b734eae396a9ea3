//! The memory of the agent's program, while the cloud sends and does not read.
//!
//! `BIN=target/release cargo test --test agent memory` measures the program of a release build. Its bound is for all of
//! the memory. The code of a debug build alone has more, so that only the growth during the flood counts there.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use connector_test_support::scripted_api::{Reply, Server};
use connector_test_support::soon;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

const MIB: u64 = 1 << 20;
/// The bound: what a device with 64 MB of memory can spare.
const BOUND: u64 = 8 * MIB;
/// Far more than the buffers of the kernel and the agent hold, in bytes.
const FLOOD: usize = 64 << 20;
/// A send that takes this long means that the agent no longer reads. A slow machine only ends the flood earlier.
const STALLED: Duration = Duration::from_secs(2);

/// The program online with a scripted cloud.
struct Rig {
    process: Child,
    cloud: WebSocketStream<TcpStream>,
    /// The peak of the memory that does not count.
    without: u64,
    _directory: tempfile::TempDir,
    _api: Server,
}

impl Rig {
    async fn start() -> Self {
        let api = Server::start(|request, _| match request.line.as_str() {
            "POST /v2/authenticate/pincode" => Reply::tokens(1),
            _ => Reply::new(404, "{}"),
        })
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        let text = format!(
            "[connector]\nuuid = \"5f3d760d-ade2-4a19-aea4-36e097678ae3\"\n[cloud]\napi_url = \"{}\"\n\
             websocket_url = \"ws://{}/\"\n[log]\nlevel = \"warn\"\n",
            api.url,
            listener.local_addr().unwrap()
        );
        std::fs::write(&file, text).unwrap();
        let release = std::env::var_os("BIN").map(PathBuf::from);
        let program = match &release {
            Some(bin) if bin.is_dir() => bin.join("connector-agent"),
            Some(bin) => bin.clone(),
            None => env!("CARGO_BIN_EXE_connector-agent").into(),
        };
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&file).env("CONNECTOR_PINCODE", "1234");
        command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET");
        let process = command.kill_on_drop(true).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let callback = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            response.headers_mut().insert("sec-websocket-protocol", "connector-relay.v1".parse().unwrap());
            Ok(response)
        };
        let accepted = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut cloud = tokio_tungstenite::accept_hdr_async(tcp, callback).await.unwrap();
            // the hello
            assert!(matches!(cloud.next().await, Some(Ok(Message::Text(_)))));
            cloud
        };
        let cloud = soon("the agent", accepted).await;
        let mut rig = Self { process, cloud, without: 0, _directory: directory, _api: api };
        if release.is_none() {
            rig.without = rig.peak();
        }
        rig
    }

    /// Sends the message again and again, and reads nothing, until the agent no longer reads.
    async fn flood(&mut self, message: &Message) {
        let mut sent = 0;
        while sent < FLOOD && tokio::time::timeout(STALLED, self.cloud.feed(message.clone())).await.is_ok() {
            sent += message.len();
        }
        println!("{} MiB were sent", sent as u64 / MIB);
    }

    /// The most memory that the process had resident so far, in bytes.
    fn peak(&self) -> u64 {
        let pid = self.process.id().expect("the agent runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn check(&self) {
        let peak = self.peak();
        println!(
            "the peak of the resident memory is {} KiB, {} of them do not count",
            peak / 1024,
            self.without / 1024
        );
        assert!(peak - self.without < BOUND, "{peak} bytes, without {}", self.without);
    }
}

#[tokio::test]
async fn a_flood_of_pings_by_a_cloud_that_does_not_read_takes_little_memory() {
    let mut rig = Rig::start().await;
    rig.flood(&Message::Ping(Bytes::from(vec![7; 125]))).await;
    rig.check();
}

#[tokio::test]
async fn a_flood_of_unknown_actions_by_a_cloud_that_does_not_read_takes_little_memory() {
    let mut rig = Rig::start().await;
    rig.flood(&Message::text(r#"{"action":"unknown","message":{},"request_id":"1"}"#)).await;
    rig.check();
}

#[tokio::test]
async fn a_flood_of_long_texts_by_a_cloud_that_does_not_read_takes_little_memory() {
    let mut rig = Rig::start().await;
    let deep = format!(r#"{{"action":"unknown","message":[{}0]}}"#, "0,".repeat(32_000));
    rig.flood(&Message::text(deep)).await;
    rig.check();
}
