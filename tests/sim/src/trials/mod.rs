//! Trials of the agent as a device runs it: its own binary, restarted whenever it exits, under the faults
//! that devices meet. Each trial begins with a fresh device, cloud and vehicle, and passes or fails.
//!
//! With `--machine` the device is a network namespace with its own CAN interface and small file system, as
//! in `cross/arm-machine`; this needs root and a kernel with CAN. Without it, the vehicle is behind an SLCAN
//! adapter, and only the trials that need nothing else can run.

mod agent_log;
mod clock;
mod disk;
mod interfaces;
mod job;
mod kills;
mod main_job;
mod patience;
mod supervisor;
mod system;
mod world;

use std::path::PathBuf;

use connector_agent::print_line;
use tokio::time::Instant;

use world::World;

/// `connector-sim trials`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  all trials passed
  1  a trial failed
  2  wrong usage")]
pub(crate) struct Args {
    /// The agent's binary.
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// Change the network namespaces, CAN interfaces, file systems and clock of this machine. Use a virtual machine.
    #[arg(long)]
    machine: bool,
    /// How many times `killed_at_random_moments` kills the agent.
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u32,
    /// The seed of the random moments. By default, a random one.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The trials to run. By default, all that can run here.
    #[arg(value_enum, value_name = "TRIAL")]
    trials: Vec<Trial>,
}

/// A trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Trial {
    /// The main job: login, online, VIN, ticket, an ECU read and flashed. Measures the memory.
    MainJob,
    /// The agent is killed by SIGKILL many times, also during sessions.
    KilledAtRandomMoments,
    /// The device's file system is full.
    NoDiskSpace,
    /// The device's file system becomes read-only.
    ReadOnlyFileSystem,
    /// The clock jumps by twenty years and back, and to 1970.
    ClockJumps,
    /// The network interface disappears and comes back, and goes down and up.
    NetworkInterfaceGone,
    /// The CAN interface disappears and comes back, and goes down and up.
    CanInterfaceGone,
}

const ALL: [Trial; 7] = [
    Trial::MainJob,
    Trial::KilledAtRandomMoments,
    Trial::NoDiskSpace,
    Trial::ReadOnlyFileSystem,
    Trial::ClockJumps,
    Trial::NetworkInterfaceGone,
    Trial::CanInterfaceGone,
];

impl Trial {
    fn name(self) -> String {
        use clap::ValueEnum as _;
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn needs_machine(self) -> bool {
        !matches!(self, Self::MainJob | Self::KilledAtRandomMoments)
    }
}

/// Some trials failed. Their names have been printed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} of the trials failed")]
pub(crate) struct Failed(usize);

/// Runs the trials.
///
/// # Errors
///
/// Returns an error if a trial failed, or cannot run here.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let chosen: Vec<Trial> = if args.trials.is_empty() {
        ALL.into_iter().filter(|trial| args.machine || !trial.needs_machine()).collect()
    } else {
        args.trials.clone()
    };
    if let Some(trial) = chosen.iter().find(|trial| !args.machine && trial.needs_machine()) {
        anyhow::bail!("{} needs --machine", trial.name());
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    print_line!("trials: {} of {}, seed {seed}", chosen.len(), args.agent.display());
    let mut failed = 0;
    for trial in &chosen {
        let start = Instant::now();
        let outcome = run_one(*trial, &args, seed).await;
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(summary) => print_line!("trial {} ... ok ({took:.1} s; {summary})", trial.name()),
            Err(error) => {
                failed += 1;
                print_line!("trial {} ... FAILED ({took:.1} s): {error:#}", trial.name());
            }
        }
    }
    print_line!("trials: {} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 { Ok(()) } else { Err(Failed(failed).into()) }
}

/// Runs a trial in a fresh world. Returns a summary of it.
async fn run_one(trial: Trial, args: &Args, seed: u64) -> anyhow::Result<String> {
    let mut world = World::set_up(&args.agent, args.machine).await?;
    let outcome = match trial {
        Trial::MainJob => main_job::run(&mut world).await,
        Trial::KilledAtRandomMoments => kills::at_random_moments(&mut world, args.kills, seed).await,
        Trial::NoDiskSpace => disk::no_space(&mut world).await,
        Trial::ReadOnlyFileSystem => disk::read_only(&mut world).await,
        Trial::ClockJumps => clock::jumps(&mut world).await,
        Trial::NetworkInterfaceGone => interfaces::network_gone(&mut world).await,
        Trial::CanInterfaceGone => interfaces::can_gone(&mut world).await,
    };
    let outcome = outcome.and_then(|summary| world.supervisor.check().map(|()| summary));
    if outcome.is_err() {
        print_line!("the end of the agent's log:\n{}", world.supervisor.log_tail());
    }
    world.take_down().await;
    outcome
}
