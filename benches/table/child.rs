//! The measured process: the agent on a bus that only generates frames, or a bare websocket that sends equal
//! frames.

use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_agent::agent::{self, Setup};
use connector_agent::cloud::dial::Dialer;
use connector_agent::config::Config;
use connector_agent::tls;
use connector_hal::board::SimBoard;
use connector_hal::can::{CanEvent, CanFrame, CanId, CanSettings};
use connector_hal::timer::{Deadline, TimerKind};
use connector_test_support::hardware::HardwareBuilder;
use connector_test_support::scripted_can::{Script, ScriptedCan};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::cpu::clock;

/// The role of this process.
pub(crate) const ROLE: &str = "CONNECTOR_BENCH_ROLE";
/// The agent's configuration, or the address to connect to.
pub(crate) const TARGET: &str = "CONNECTOR_BENCH_TARGET";
/// Frames per second.
pub(crate) const RATE: &str = "CONNECTOR_BENCH_RATE";
/// The certificate authority.
pub(crate) const CA: &str = "CONNECTOR_BENCH_CA";

/// The maximum number of frames per wake-up.
const BURST: u32 = 32;

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).map_err(|_| anyhow::anyhow!("{name} is not set"))
}

pub(crate) fn run(role: &str) -> anyhow::Result<()> {
    let rate: u32 = variable(RATE)?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match role {
            "agent" => run_agent(rate).await,
            _ => run_bare(rate).await,
        }
    })
}

async fn run_agent(rate: u32) -> anyhow::Result<()> {
    let config = Config::load(&PathBuf::from(variable(TARGET)?))?;
    let (board, _handle) = SimBoard::new();
    let hardware = HardwareBuilder::of_config(&config, None)
        .open_can(move |_| Ok(Box::new(ScriptedCan(FrameSource::new(rate)))))
        .build();
    let setup = Setup {
        pincode: config.pincode()?,
        hardware,
        board: Box::new(board),
        dialer: Dialer::new(tls::client_config(config.cloud.ca_file.as_deref())?),
        seed: 1,
        config,
    };
    let (_commands, mut control) = tokio::sync::mpsc::channel(1);
    agent::run(setup, &mut control).await?;
    Ok(())
}

/// Sends equal frames, of 16 bytes each, over a bare websocket.
async fn run_bare(rate: u32) -> anyhow::Result<()> {
    let tls = tls::client_config(Some(&PathBuf::from(variable(CA)?)))?;
    let stream = tokio::net::TcpStream::connect(variable(TARGET)?).await?;
    stream.set_nodelay(true)?;
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1")?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await?;
    let (mut socket, _) = tokio_tungstenite::client_async("wss://127.0.0.1/", stream).await?;
    let mut source = FrameSource::new(rate);
    source.is_running = true;
    loop {
        tokio::select! {
            event = std::future::poll_fn(|cx| source.poll_event(cx)) => {
                let CanEvent::Received { frame, .. } = event else { continue };
                let mut bytes = vec![0; 8];
                bytes.extend_from_slice(frame.data());
                // like the agent, all frames of one wake-up share a write
                if source.left_in_burst == 0 { socket.send(Message::binary(bytes)).await? } else { socket.feed(Message::binary(bytes)).await? }
            }
            echo = socket.next() => {
                if echo.transpose()?.is_none() { return Ok(()) }
            }
        }
    }
}

/// A bus that generates frames at an even rate. Each frame contains the time of its creation.
struct FrameSource {
    per_wake: u32,
    interval: Duration,
    next: Instant,
    left_in_burst: u32,
    is_running: bool,
    deadline: Deadline,
}

impl FrameSource {
    fn new(rate: u32) -> Self {
        let per_wake = (rate / 6_250).clamp(1, BURST);
        Self {
            per_wake,
            interval: Duration::from_secs(1) * per_wake / rate.max(1),
            next: Instant::now(),
            left_in_burst: 0,
            is_running: false,
            deadline: Deadline::new(TimerKind::Precise),
        }
    }
}

impl Script for FrameSource {
    fn configure(&mut self, settings: CanSettings) {
        // silent during the reading of the VIN, so that only the frames of the session are counted
        self.is_running = !settings.listen_only;
        self.next = Instant::now() + Duration::from_millis(500);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<CanEvent> {
        if !self.is_running {
            return Poll::Pending;
        }
        if self.left_in_burst == 0 {
            let now = Instant::now();
            if now < self.next {
                self.deadline.set(Some(self.next));
                if self.deadline.poll_expired(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            self.next += self.interval;
            self.left_in_burst = self.per_wake;
        }
        self.left_in_burst -= 1;
        let id = CanId::standard_truncated(0x7E8);
        match CanFrame::new(id, &clock().to_be_bytes()) {
            Ok(frame) => Poll::Ready(CanEvent::Received { frame, at: Instant::now() }),
            Err(_) => Poll::Pending,
        }
    }
}
