//! Interfaces that disappear and come back.

use anyhow::Context as _;

use super::job::{self, Job};
use super::system::{self, DEVICE};
use super::world::World;

/// The network goes, in a session: it goes on when the network is back.
pub(super) async fn network_gone(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    let (logins, pid) = (world.cloud.pincode_logins(), world.supervisor.pid().await?);
    let job = Job::start(world).await?;
    job.read().await?;

    let (hellos, mark) = (world.hellos(), world.supervisor.mark());
    system::remove_network().await?;
    world.supervisor.logged(mark, "offline").await?;
    system::add_network().await?;
    world.online_after(hellos).await.context("after the interface was back")?;
    job.read_again().await.context("after the interface was back")?;

    let (hellos, mark) = (world.hellos(), world.supervisor.mark());
    system::ip(&format!("-netns {DEVICE} link set eth0 down")).await?;
    world.supervisor.logged(mark, "offline").await?;
    system::ip(&format!("-netns {DEVICE} link set eth0 up")).await?;
    world.online_after(hellos).await.context("after the interface was up")?;
    job.read_again().await.context("after the interface was up")?;
    job.complete().await?;

    // without a network from the beginning
    system::remove_network().await?;
    let (hellos, mark) = (world.hellos(), world.supervisor.mark());
    anyhow::ensure!(world.supervisor.pid().await? == pid, "the agent was started again");
    world.supervisor.kill().await?;
    world.supervisor.logged(mark, "trying again").await?;
    system::add_network().await?;
    world.online_after(hellos).await.context("started without a network")?;
    let logins = world.cloud.pincode_logins() - logins;
    anyhow::ensure!(logins == 0, "{logins} logins");
    job::short(world).await?;
    Ok("gone and back, down and up, and gone at the start; no login".to_owned())
}

/// The CAN interface goes, in a session: the connector stays online, and the session's bus works when it is back.
pub(super) async fn can_gone(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    let (logins, hellos) = (world.cloud.pincode_logins(), world.hellos());
    let pid = world.supervisor.pid().await?;
    let job = Job::start(world).await?;
    job.read().await?;

    let mark = world.supervisor.mark();
    system::remove_can().await?;
    world.supervisor.logged(mark, "lost the CAN device").await?;
    world.bring_back_can().await?;
    job.read_again().await.context("after the interface was back")?;

    for state in ["down", "up"] {
        system::set_can(state).await?;
    }
    job.read_again().await.context("after the interface was up")?;
    job.complete().await?;

    // while no session is open
    let mark = world.supervisor.mark();
    system::remove_can().await?;
    world.supervisor.logged(mark, "lost the CAN device").await?;
    world.bring_back_can().await?;
    job::vin_is_told(world).await.context("after the interface was back")?;
    job::short(world).await.context("after the interface was back")?;
    anyhow::ensure!(world.supervisor.pid().await? == pid, "the agent was started again");
    anyhow::ensure!(world.hellos() == hellos, "the link was lost with the bus");

    // without the interface from the beginning
    system::remove_can().await?;
    world.kill_and_come_back().await?;
    world.bring_back_can().await?;
    job::vin_is_told(world).await.context("started without the interface")?;
    job::short(world).await.context("started without the interface")?;
    let logins = world.cloud.pincode_logins() - logins;
    anyhow::ensure!(logins == 0, "{logins} logins");
    Ok("gone and back, down and up, and gone at the start; no login".to_owned())
}
