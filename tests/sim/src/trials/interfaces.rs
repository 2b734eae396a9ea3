//! Interfaces disappear and come back.

use anyhow::Context as _;

use super::agent_log;
use super::job::{self, Job};
use super::system::{self, DEVICE};
use super::world::World;

/// The network interface disappears during a session: the session continues when the interface is back.
pub(super) async fn network_gone(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    let (logins, pid) = (world.cloud.pincode_logins(), world.supervisor.pid().await?);
    let job = Job::start(world).await?;
    job.read().await?;

    let (hellos, mark) = (world.hellos(), world.supervisor.mark());
    system::remove_network().await?;
    world.supervisor.logged(mark, agent_log::OFFLINE).await?;
    system::add_network().await?;
    world.online_after(hellos).await.context("after the interface came back")?;
    job.read_again().await.context("after the interface came back")?;

    let (hellos, mark) = (world.hellos(), world.supervisor.mark());
    system::ip(&format!("-netns {DEVICE} link set eth0 down")).await?;
    world.supervisor.logged(mark, agent_log::OFFLINE).await?;
    system::ip(&format!("-netns {DEVICE} link set eth0 up")).await?;
    world.online_after(hellos).await.context("after the interface came up")?;
    job.read_again().await.context("after the interface came up")?;
    job.complete().await?;

    // start without a network
    system::remove_network().await?;
    let (hellos, mark) = (world.hellos(), world.supervisor.mark());
    anyhow::ensure!(world.supervisor.pid().await? == pid, "the agent was restarted");
    world.supervisor.kill().await?;
    world.supervisor.logged(mark, agent_log::RETRYING).await?;
    system::add_network().await?;
    world.online_after(hellos).await.context("started without a network")?;
    let logins = world.cloud.pincode_logins() - logins;
    anyhow::ensure!(logins == 0, "{logins} logins");
    job::short(world).await?;
    Ok("removed and restored, down and up, missing at the start; no login".to_owned())
}

/// The CAN interface disappears during a session: the connector stays online, and the session's bus works
/// again when the interface is back.
pub(super) async fn can_gone(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    let (logins, hellos) = (world.cloud.pincode_logins(), world.hellos());
    let pid = world.supervisor.pid().await?;
    let job = Job::start(world).await?;
    job.read().await?;

    let mark = world.supervisor.mark();
    system::remove_can().await?;
    world.supervisor.logged(mark, agent_log::LOST_CAN).await?;
    world.bring_back_can().await?;
    job.read_again().await.context("after the interface came back")?;

    for state in ["down", "up"] {
        system::set_can(state).await?;
    }
    job.read_again().await.context("after the interface came up")?;
    job.complete().await?;

    // without an open session
    let mark = world.supervisor.mark();
    system::remove_can().await?;
    world.supervisor.logged(mark, agent_log::LOST_CAN).await?;
    world.bring_back_can().await?;
    job::vin_is_reported(world).await.context("after the interface came back")?;
    job::short(world).await.context("after the interface came back")?;
    anyhow::ensure!(world.supervisor.pid().await? == pid, "the agent was restarted");
    anyhow::ensure!(world.hellos() == hellos, "the link was lost together with the bus");

    // start without the interface
    system::remove_can().await?;
    world.kill_and_come_back().await?;
    world.bring_back_can().await?;
    job::vin_is_reported(world).await.context("started without the interface")?;
    job::short(world).await.context("started without the interface")?;
    let logins = world.cloud.pincode_logins() - logins;
    anyhow::ensure!(logins == 0, "{logins} logins");
    Ok("removed and restored, down and up, missing at the start; no login".to_owned())
}
