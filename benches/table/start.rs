//! The time from the start of the process to being online: login, websocket, two TLS handshakes.

use std::process::Stdio;
use std::time::Instant;

use anyhow::Context;
use connector_sim::cloud::{Cloud, CloudConfig};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::Row;
use crate::relay::configuration;

/// The number of starts.
const ROUNDS: usize = 10;

pub(crate) async fn to_online() -> anyhow::Result<Row> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
    let config = configuration(directory.path(), &cloud, "")?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut agent = Command::new(crate::agent_binary())
            .arg("run")
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = agent.stderr.take().context("the agent has no log")?;
        let mut lines = BufReader::new(log).lines();
        while let Some(line) = lines.next_line().await? {
            if line.contains("online") {
                times.push(started.elapsed());
                break;
            }
        }
        agent.kill().await?;
    }
    cloud.shutdown().await;
    times.sort_unstable();
    let median = times.get(times.len() / 2).context("the agent never came online")?;
    Ok(("process start to online, median of 10".to_owned(), format!("{} ms", median.as_millis())))
}
