//! The device's file system cannot be written to.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use anyhow::Context as _;

use super::agent_log;
use super::job;
use super::patience::patiently;
use super::system;
use super::world::World;

/// Interval at which to look at a file that the agent writes.
const POLL: Duration = Duration::from_millis(20);

/// The file system is full: the agent keeps working, and stores its login as soon as there is space again.
pub(super) async fn no_space(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    // the first login is stored before the file system is full
    let path = world.device.join("filler");
    until_kept(world).await?;
    let mut filler = std::fs::File::create(&path)?;
    loop {
        match filler.write(&[0; 1024]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error).context("cannot fill the file system"),
        }
    }
    drop(filler);
    let summary = without_writing(world, agent_log::NOT_STORED).await?;
    std::fs::remove_file(&path)?;
    recovered(world).await?;
    Ok(summary)
}

/// The file system becomes read-only: the agent keeps working, and stores its login as soon as it can write
/// again.
pub(super) async fn read_only(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    until_kept(world).await?;
    system::set_read_only(&world.device, true)?;
    let outcome = without_writing(world, agent_log::NOT_STORED).await;
    system::set_read_only(&world.device, false)?;
    let summary = outcome?;
    recovered(world).await?;
    Ok(summary)
}

async fn until_kept(world: &mut World) -> anyhow::Result<()> {
    let path = world.device.join("state/login.json");
    patiently("the login is not stored", async {
        while !path.exists() {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    })
    .await?;
    world.check_state()
}

/// Restarts the agent while it cannot store anything: each start needs at most one login, and a job can be
/// done.
async fn without_writing(world: &mut World, complaint: &str) -> anyhow::Result<String> {
    let before = world.cloud.pincode_logins();
    world.kill_and_come_back().await?;
    let logins = world.cloud.pincode_logins() - before;
    anyhow::ensure!(logins == 0, "{logins} logins with a valid stored token");

    let mut restarts = 0;
    for _ in 0..4 {
        world.cloud.expire_tokens();
        let before = world.cloud.pincode_logins();
        let mark = world.supervisor.mark();
        world.kill_and_come_back().await?;
        world.supervisor.logged(mark, complaint).await?;
        restarts += 1;
        let logins = world.cloud.pincode_logins() - before;
        anyhow::ensure!(logins <= 1, "{logins} logins after one restart");
        world.check_state()?;
    }
    job::short(world).await?;
    let logins = world.cloud.pincode_logins() - before;
    Ok(format!("{restarts} restarts with expired tokens, {logins} logins"))
}

/// Checks that the login is stored again after one more restart, now that the agent can write.
async fn recovered(world: &mut World) -> anyhow::Result<()> {
    world.cloud.expire_tokens();
    let path = world.device.join("state/login.json");
    let old = std::fs::read(&path).unwrap_or_default();
    world.kill_and_come_back().await?;
    patiently("the login is not stored again", async {
        while std::fs::read(&path).unwrap_or_default() == old {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    })
    .await?;
    world.check_state()?;
    let before = world.cloud.pincode_logins();
    for _ in 0..3 {
        world.kill_and_come_back().await?;
    }
    let logins = world.cloud.pincode_logins() - before;
    anyhow::ensure!(logins == 0, "{logins} logins although the login could be stored");
    Ok(())
}
