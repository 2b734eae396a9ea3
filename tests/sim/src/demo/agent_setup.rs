//! The agent of a demo, its cloud, and the network between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::print_line;

use super::agent::Agent;
use super::args::Args;
use super::duration::brief;
use super::story::{ResultTable, Story};
use crate::cloud::{Cloud, CloudConfig};
use crate::network::{BadNetwork, BadNetworkConfig};
use crate::scenario::{AgentConfig, write_private};

/// The running agent, network and cloud, dropped in this order.
pub(super) struct AgentSetup {
    pub(super) agent: Agent,
    pub(super) network: BadNetwork,
    pub(super) cloud: Cloud,
}

impl AgentSetup {
    /// Starts the cloud, the network and the agent. `hardware` are the sections of the agent's configuration
    /// for buses and board.
    pub(super) async fn start(
        args: &Args,
        directory: &Path,
        hardware: &str,
        story: &Story,
    ) -> anyhow::Result<Self> {
        let cloud = Cloud::start(CloudConfig::local(directory.join("cloud"))).await?;
        story.report("cloud", &format!("a sandbox at {}, with its own certificate authority", cloud.api_url));
        let conditions = BadNetworkConfig {
            round_trip: Duration::from_millis(args.rtt),
            cut_every: args.cut_every,
            ..BadNetworkConfig::default()
        };
        let network = BadNetwork::start(cloud.address, conditions).await.context("the network")?;
        let cuts = match args.cut_every {
            Some(every) => format!("cut every {} s", every.as_secs_f64()),
            None => "never cut".to_owned(),
        };
        story.report("network", &format!("{} ms round trip between connector and cloud, {cuts}", args.rtt));
        let config = write_config(directory, &cloud, &network, hardware)?;
        let agent = Agent::start(args.agent.as_deref(), &config, directory, args.show_log)?;
        let process = agent.id().map(|id| format!(" as process {id}")).unwrap_or_default();
        story.report("connector", &format!("the agent started{process}, with UUID and pincode"));
        Ok(Self { agent, network, cloud })
    }

    /// Ends the agent, and checks that it exits in good order. Prints its log if that or the demo failed.
    pub(super) async fn end_agent(&mut self, story: &Story, table: &mut ResultTable, has_failed: bool) {
        let memory = self.agent.memory();
        let ended = self.agent.end().await;
        let megabytes = memory
            .map(|bytes| format!(", {:.1} MB of private memory", bytes as f64 / 1e6))
            .unwrap_or_default();
        let (outcome, right) = match &ended {
            Some((status, took)) => {
                (format!("ended by SIGTERM in {}: {status}", brief(*took)), status.success())
            }
            None => ("had to be killed".to_owned(), false),
        };
        story.report("connector", &format!("the agent {outcome}"));
        table.check("Agent", format!("{outcome}{megabytes}"), right);
        if (has_failed || !right)
            && let Some(log) = self.agent.log_tail()
        {
            print_line!("\nThe end of the agent's log:\n{log}");
        }
    }
}

/// Writes the agent's configuration, which reaches the cloud through the network.
fn write_config(
    directory: &Path,
    cloud: &Cloud,
    network: &BadNetwork,
    hardware: &str,
) -> anyhow::Result<PathBuf> {
    let pincode_file = directory.join("pincode");
    write_private(&pincode_file, &cloud.connector_pincode)?;
    let through_network = |url: &str| url.replace(&cloud.address.to_string(), &network.address().to_string());
    let config = AgentConfig {
        uuid: cloud.connector_uuid,
        pincode_file: &pincode_file,
        state_directory: None,
        api_url: &through_network(&cloud.api_url),
        websocket_url: &through_network(&cloud.websocket_url),
        ca_file: &cloud.ca_file,
        cloud_settings: "",
        hardware,
    };
    let path = directory.join("connector-agent.toml");
    write_private(&path, &config.to_toml())?;
    Ok(path)
}

/// Removes the temporary directory of a demo.
pub(super) fn remove(directory: tempfile::TempDir) {
    if let Err(error) = directory.close() {
        tracing::warn!(%error, "cannot remove the temporary directory");
    }
}
