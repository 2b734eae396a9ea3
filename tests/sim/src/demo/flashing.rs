//! Flashing an ECU, with its progress as steps of the demo.

use super::agent::Agent;
use super::story::Story;
use crate::scenario::FIRMWARE_ADDRESS;
use connector_operator::FlashProgress;
use connector_operator::client::{Channel, Timing};
use connector_operator::flash::{Firmware, FlashReport, flash};

/// Flashes `data` over `channel`. Fails early if the agent exits.
pub(super) async fn flash_with_progress(
    agent: &mut Agent,
    story: &Story,
    channel: &Channel,
    data: &[u8],
) -> anyhow::Result<FlashReport> {
    let mut progress = FlashProgress::new(data.len(), |line| story.report("operator", &format!("  {line}")));
    let firmware = Firmware { address: FIRMWARE_ADDRESS, data };
    let timing = Timing::default();
    let mut show = |step| progress.handle(step);
    let flashed = tokio::select! {
        flashed = flash(channel, firmware, &timing, &mut show) => flashed,
        ended = agent.ended() => anyhow::bail!("the agent exited: {}", ended?),
    };
    progress.end();
    Ok(flashed.map_err(connector_operator::Failure::from)?)
}
