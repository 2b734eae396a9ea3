//! A clock that jumps by years and back.

use anyhow::Context as _;

use super::job::{self, Job, People};
use super::system::{self, Jump};
use super::world::World;

const YEAR: u64 = 365 * 24 * 3600;

/// A session goes on whatever the clock says. With the clock twenty years ahead, certificates have expired: the agent
/// says so, and is online as soon as the clock is right. With the clock in 1970 it is online all the same.
pub(super) async fn jumps(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    let logins = world.cloud.pincode_logins();
    let hellos = world.hellos();
    let job = Job::start(world).await?;
    job.read().await?;
    for seconds in [system::clock() + 20 * YEAR, 10] {
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
    world.supervisor.logged(mark, "has expired by this device's clock").await?;
    anyhow::ensure!(world.hellos() == hellos, "an expired certificate was accepted");
    jump.back()?;
    world.online_after(hellos).await.context("after the clock was right again")?;

    // their clocks are right when they come, and it is this machine's that jumps
    let people = People::log_in(world).await?;
    let jump = Jump::to(10)?;
    world.kill_and_come_back().await.context("in 1970")?;
    job::short_by(world, &people).await.context("in 1970")?;
    jump.back()?;
    world.kill_and_come_back().await?;
    job::short(world).await?;
    let logins = world.cloud.pincode_logins() - logins;
    anyhow::ensure!(logins == 0, "{logins} logins, although the refresh tokens were good");
    Ok("20 years ahead and back, and 1970; no login".to_owned())
}
