//! Trials of the agent as a device runs it: its own binary, started again whenever it ends, and everything done to it
//! that happens to devices. Each trial begins with a fresh device, cloud and vehicle, and passes or fails.
//!
//! With `--machine` the device is a network namespace with a CAN interface and a small file system of its own, as in
//! `cross/arm-machine`; that takes root and a kernel with CAN. Without it, the vehicle is behind an SLCAN adapter, and
//! only the trials that need nothing else can be chosen.

mod clock;
mod disk;
mod figures;
mod interfaces;
mod job;
mod kills;
mod supervisor;
mod system;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use world::World;

/// `connector-sim trials`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  all trials passed
  1  one did not
  2  wrong usage")]
pub struct Args {
    /// The agent's binary.
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// With network namespaces, CAN interfaces, file systems and the clock of this machine, which should be a virtual one.
    #[arg(long)]
    machine: bool,
    /// How often the agent is killed in `killed_at_random_moments`.
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u32,
    /// The seed of the random moments; without it, another each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The trials to run; without any, all that can be.
    #[arg(value_enum, value_name = "TRIAL")]
    trials: Vec<Trial>,
}

/// What is done to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Trial {
    /// VIN, login, online, ticket, an ECU read and flashed, and what memory that takes.
    MainJob,
    /// `kill -9`, again and again, in sessions too.
    KilledAtRandomMoments,
    /// The device's file system is full.
    NoDiskSpace,
    /// The device's file system becomes read-only.
    ReadOnlyFileSystem,
    /// The clock jumps by twenty years and back, and to 1970.
    ClockJumps,
    /// The network interface disappears, comes back, and goes down and up.
    NetworkInterfaceGone,
    /// The CAN interface disappears, comes back, and goes down and up.
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

/// Nothing that is waited for in a trial takes longer: the longest pause between two attempts to come online is a
/// minute, and a machine that emulates another is slow.
const PATIENCE: Duration = Duration::from_secs(120);

impl Trial {
    fn name(self) -> String {
        use clap::ValueEnum as _;
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn needs_machine(self) -> bool {
        !matches!(self, Self::MainJob | Self::KilledAtRandomMoments)
    }
}

/// Not every trial passed; which, was printed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} of the trials failed")]
pub struct Failed(usize);

/// Runs the trials.
///
/// # Errors
///
/// A trial that did not pass, or cannot be run here.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let chosen: Vec<Trial> = if args.trials.is_empty() {
        ALL.into_iter().filter(|trial| args.machine || !trial.needs_machine()).collect()
    } else {
        args.trials.clone()
    };
    if let Some(trial) = chosen.iter().find(|trial| !args.machine && trial.needs_machine()) {
        anyhow::bail!("{} needs --machine", trial.name());
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("trials: {} of {}, seed {seed}", chosen.len(), args.agent.display());
    let mut failed = 0;
    for trial in &chosen {
        let start = Instant::now();
        let outcome = run_one(*trial, &args, seed).await;
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(said) => println!("trial {} ... ok ({took:.1} s; {said})", trial.name()),
            Err(error) => {
                failed += 1;
                println!("trial {} ... FAILED ({took:.1} s): {error:#}", trial.name());
            }
        }
    }
    println!("trials: {} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 { Ok(()) } else { Err(Failed(failed).into()) }
}

/// Waits for this, but not for ever; `otherwise` says what is wrong then.
async fn patiently<T>(
    otherwise: &str,
    waiting: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => anyhow::bail!("{otherwise} after {} s", PATIENCE.as_secs()),
    }
}

/// Runs a trial on a fresh world; gives what there is to say about it.
async fn run_one(trial: Trial, args: &Args, seed: u64) -> anyhow::Result<String> {
    let mut world = World::set_up(&args.agent, args.machine).await?;
    let outcome = match trial {
        Trial::MainJob => figures::main_job(&mut world).await,
        Trial::KilledAtRandomMoments => kills::at_random_moments(&mut world, args.kills, seed).await,
        Trial::NoDiskSpace => disk::no_space(&mut world).await,
        Trial::ReadOnlyFileSystem => disk::read_only(&mut world).await,
        Trial::ClockJumps => clock::jumps(&mut world).await,
        Trial::NetworkInterfaceGone => interfaces::network_gone(&mut world).await,
        Trial::CanInterfaceGone => interfaces::can_gone(&mut world).await,
    };
    let outcome = outcome.and_then(|said| world.supervisor.check().map(|()| said));
    if outcome.is_err() {
        println!("the end of the agent's log:\n{}", world.supervisor.log_tail());
    }
    world.take_down().await;
    outcome
}
