//! The agent is killed by SIGKILL at random moments.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::job::{self, Job};
use super::world::World;

/// The agent comes back each time, logs in at most once for each start, and not at all while its tokens are
/// valid.
pub(super) async fn at_random_moments(world: &mut World, kills: u32, seed: u64) -> anyhow::Result<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    world.online().await?;
    let coming_online = start.elapsed();
    let (mut in_session, mut early) = (0, 0);
    for kill in 0..kills {
        let logins = world.cloud.pincode_logins();
        let starts = world.supervisor.starts();
        // the cloud revokes the token now and then, so that the agent has to refresh and store it
        let is_expired = kill % 5 == 4;
        if is_expired {
            world.cloud.expire_tokens();
        }
        match kill % 10 {
            3 => {
                in_session += 1;
                in_a_session(world, &mut random)
                    .await
                    .with_context(|| format!("kill {kill}, in a session"))?;
            }
            6 | 9 => {
                early += 1;
                // while the agent comes online
                world.supervisor.pid().await?;
                pause(&mut random, coming_online).await;
                world.supervisor.kill().await?;
            }
            _ => {
                let hellos = world.hellos();
                world.supervisor.kill().await?;
                world.online_after(hellos).await.with_context(|| format!("kill {kill}"))?;
                pause(&mut random, coming_online / 4).await;
            }
        }
        world.check_state().with_context(|| format!("after kill {kill}"))?;
        let logins = world.cloud.pincode_logins() - logins;
        let starts = world.supervisor.starts() - starts;
        anyhow::ensure!(logins <= starts, "kill {kill}: {logins} logins after {starts} starts");
    }
    // the last kill may have been while the agent came online
    let logins = world.cloud.pincode_logins();
    world.kill_and_come_back().await?;
    job::short(world).await.context("after the last kill")?;
    for _ in 0..3 {
        world.kill_and_come_back().await?;
    }
    let last = world.cloud.pincode_logins();
    anyhow::ensure!(last <= logins + 1, "{} logins with valid tokens", last - logins);
    Ok(format!(
        "{kills} kills, {in_session} in a session, {early} while coming online; online {} times, {last} logins, \
         online after {:.1} s",
        world.hellos(),
        coming_online.as_secs_f64()
    ))
}

/// Kills the agent while it flashes an ECU.
async fn in_a_session(world: &mut World, random: &mut fastrand::Rng) -> anyhow::Result<()> {
    let job = Job::start(world).await?;
    let hellos = world.hellos();
    tokio::select! {
        flashed = job.flash(world, 1 << 20) => flashed.context("before the kill")?,
        () = pause(random, Duration::from_secs(2)) => {}
    }
    world.supervisor.kill().await?;
    world.online_after(hellos).await?;
    job.cancel().await
}

async fn pause(random: &mut fastrand::Rng, limit: Duration) {
    tokio::time::sleep(limit.mul_f64(random.f64())).await;
}
