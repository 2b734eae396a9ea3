//! The agent's main job from start to end, and the memory that it takes.

use anyhow::Context as _;
use connector_agent::print_line;
use rustix::process::Pid;

use super::agent_log;
use super::job::{self, Job};
use super::world::World;

/// Limit of the agent's resident memory while it is online, in kB of 1000 bytes.
const RESIDENT_ONLINE: u64 = 6_000;
/// Size of the firmware to flash, in bytes.
const FIRMWARE: usize = 64 << 10;

/// Login, online, VIN, ticket, one ECU read and flashed; prints the resident memory at three stages.
pub(super) async fn run(world: &mut World) -> anyhow::Result<String> {
    world.go_offline().await;
    let mark = world.supervisor.mark();
    world.supervisor.logged(mark, agent_log::RETRYING).await?;
    let idle = Memory::of(world.supervisor.pid().await?)?;

    let hellos = world.hellos();
    world.go_online().await;
    world.online_after(hellos).await?;
    job::vin_is_reported(world).await?;
    let job = Job::start(world).await?;
    let online = Memory::of(world.supervisor.pid().await?)?;
    let answers = job.read().await?;
    job.flash(world, FIRMWARE).await?;
    let session = Memory::of(world.supervisor.pid().await?)?;
    let pdus = job.pdus();
    let vehicle = world.vehicle.as_ref().context("there is no vehicle")?;
    let anomalies = vehicle.anomalies();
    anyhow::ensure!(anomalies.is_empty(), "the ECUs recorded anomalies: {anomalies:?}");
    job.complete().await?;
    print_line!("  resident, kB of 1000 bytes     all      private          peak");
    for (stage, memory) in
        [("without the cloud", idle), ("online over TLS", online), ("in a session", session)]
    {
        print_line!("  {stage:<28}{:>6}{:>13}{:>14}", memory.resident, memory.anonymous, memory.peak);
    }
    anyhow::ensure!(
        online.resident <= RESIDENT_ONLINE,
        "{} kB are resident while online, more than {RESIDENT_ONLINE}",
        online.resident
    );
    Ok(format!("{answers} answers, {FIRMWARE} bytes flashed, {pdus} PDUs"))
}

/// Resident memory, in kB of 1000 bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: u64,
    /// Memory that is not a page of the program's file, which the kernel could drop.
    anonymous: u64,
    peak: u64,
}

impl Memory {
    fn of(pid: Pid) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let value = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.with_context(|| format!("no {name} in /proc"))?;
            let number = number.trim().trim_end_matches("kB").trim();
            Ok(number.parse::<u64>()? * 1024 / 1000)
        };
        Ok(Self { resident: value("VmRSS:")?, anonymous: value("RssAnon:")?, peak: value("VmHWM:")? })
    }
}
