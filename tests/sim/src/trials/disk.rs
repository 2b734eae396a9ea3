//! A device whose file system cannot be written to.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use anyhow::Context as _;

use super::job;
use super::patiently;
use super::system;
use super::world::World;

/// How often a file is looked at that somebody else writes.
const POLL: Duration = Duration::from_millis(20);

/// The file system is full: the agent works, and keeps its login again as soon as there is room.
pub(super) async fn no_space(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    // the first login is kept before there is no more room for it
    let path = world.device.join("filler");
    until_kept(world).await?;
    let mut filler = std::fs::File::create(&path)?;
    loop {
        match filler.write(&[0; 1024]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error).context("the file system cannot be filled"),
        }
    }
    drop(filler);
    let said = without_writing(world, "cannot save the login").await?;
    std::fs::remove_file(&path)?;
    recovered(world).await?;
    Ok(said)
}

/// The file system becomes read-only: the same.
pub(super) async fn read_only(world: &mut World) -> anyhow::Result<String> {
    world.online().await?;
    until_kept(world).await?;
    system::set_read_only(&world.device, true)?;
    let said = without_writing(world, "cannot save the login").await;
    system::set_read_only(&world.device, false)?;
    let said = said?;
    recovered(world).await?;
    Ok(said)
}

async fn until_kept(world: &mut World) -> anyhow::Result<()> {
    let path = world.device.join("state/login.json");
    patiently("the login is not kept", async {
        while !path.exists() {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    })
    .await?;
    world.check_state()
}

/// Restarts without anything that can be kept: at most one login each, and the job can be done.
async fn without_writing(world: &mut World, complaint: &str) -> anyhow::Result<String> {
    let before = world.cloud.pincode_logins();
    world.kill_and_come_back().await?;
    let logins = world.cloud.pincode_logins() - before;
    anyhow::ensure!(logins == 0, "{logins} logins with a kept token that is good");

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
    Ok(format!("{restarts} restarts with tokens that expired, {logins} logins"))
}

/// There is room again: after one more restart the login is kept.
async fn recovered(world: &mut World) -> anyhow::Result<()> {
    world.cloud.expire_tokens();
    let path = world.device.join("state/login.json");
    let old = std::fs::read(&path).unwrap_or_default();
    world.kill_and_come_back().await?;
    patiently("the login is not kept again", async {
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
    anyhow::ensure!(logins == 0, "{logins} logins although the login could be kept");
    Ok(())
}
