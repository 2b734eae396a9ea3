//! The device's clock jumps by years and back.

use anyhow::Context as _;

use super::agent_log;
use super::job::{self, Job, People};
use super::system::{self, Jump};
use super::world::World;

const YEAR: u64 = 365 * 24 * 3600;
/// The second day of 1970: the kernel rejects a time that puts its own start before 1970.
const IN_1970: u64 = 24 * 3600;

/// A session continues whatever the clock shows. With the clock twenty years ahead, certificates have
/// expired: the agent logs that, and comes online as soon as the clock is right. With the clock in 1970 the
/// agent comes online nevertheless.
pub(super) async fn jumps(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    let logins = world.cloud.pincode_logins();
    let hellos = world.hellos();
    let job = Job::start(world).await?;
    job.read().await?;
    for seconds in [system::clock() + 20 * YEAR, IN_1970] {
        let jump = Jump::to(seconds)?;
        job.read().await.context("after the clock jumped")?;
        jump.back()?;
        job.read().await.context("after the clock jumped back")?;
    }
    job.complete().await?;
    anyhow::ensure!(world.hellos() == hellos, "the link was lost when the clock jumped");

    let hellos = world.hellos();
    let mark = world.supervisor.mark();
    let jump = Jump::to(system::clock() + 20 * YEAR)?;
    world.supervisor.kill().await?;
    world.supervisor.logged(mark, agent_log::CERTIFICATE_EXPIRED).await?;
    anyhow::ensure!(world.hellos() == hellos, "an expired certificate was accepted");
    jump.back()?;
    world.online_after(hellos).await.context("after the clock was right again")?;

    // log in while the clock is right, because this machine's clock jumps
    let people = People::log_in(world).await?;
    let jump = Jump::to(IN_1970)?;
    world.kill_and_come_back().await.context("in 1970")?;
    job::short_by(world, &people).await.context("in 1970")?;
    jump.back()?;
    world.kill_and_come_back().await?;
    job::short(world).await?;
    let logins = world.cloud.pincode_logins() - logins;
    // the cloud runs on this machine: the tokens that it issued in 1970 have expired since
    anyhow::ensure!(logins <= 1, "{logins} logins");
    Ok(format!("20 years ahead and back, and 1970; {logins} logins"))
}
