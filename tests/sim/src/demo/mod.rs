//! Everything at once, in one process tree: vehicle, cloud, network, agent, customer and operator, told step by step.

mod acts;
pub mod agent;
mod limit;
mod plugged;
mod reading;
mod stage;
mod story;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use acts::Demo;
use stage::Stage;
use story::Story;

/// The vehicles that come with the program.
pub(crate) const VEHICLES: &str = include_str!("../../../data/vehicles/vehicles.json");

/// `connector-sim demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  all was right: VIN, every response, the flashed memory; nothing lost, nothing doubled
  1  something was not
  2  wrong usage
  130  interrupted")]
pub struct Args {
    /// Which vehicle, by its platform.
    #[arg(long, value_name = "NAME", default_value = "VOLKSWAGEN_GOLF_MK7")]
    platform: String,
    /// Round trip between connector and cloud.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=5000))]
    rtt: u64,
    /// Cuts the link between connector and cloud this often.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    cut_every: Option<Duration>,
    /// The firmware to flash; without it, one is made up.
    #[arg(long, value_name = "FIRMWARE", conflicts_with = "size")]
    file: Option<PathBuf>,
    /// How many bytes the made-up firmware has.
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    size: u32,
    /// How much of the bus's time the vehicle's own messages take.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    load: u8,
    /// Tells the story over DoIP: the vehicle is behind a gateway, which announces its VIN.
    #[arg(long, conflicts_with = "load")]
    doip: bool,
    /// Another agent than the one built in, such as one for another processor: "qemu-arm-static ./connector-agent".
    #[arg(long, value_name = "COMMAND")]
    agent: Option<String>,
    /// Shows the agent's log too.
    #[arg(long)]
    show_log: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 2.5".to_owned())?;
    if (0.5..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("from 0.5 to 3600 seconds".to_owned())
    }
}

/// The demo ended, but not all was right; what, it has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DemoError {
    /// Something was not as it should be.
    #[error("not everything was right: see above")]
    NotRight,
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NotRight => 1,
            Self::Interrupted => 130,
        }
    }
}

/// Runs the demo.
///
/// # Errors
///
/// What could not be set up, or a [`DemoError`].
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let story = Story::new();
    let mut stage = tokio::select! {
        stage = Stage::set_up(&args, &story) => stage?,
        _ = terminate.recv() => return Err(DemoError::Interrupted.into()),
        _ = interrupt.recv() => return Err(DemoError::Interrupted.into()),
    };
    let mut demo = Demo::default();
    let ended = tokio::select! {
        ended = demo.play(&mut stage, &story) => ended,
        _ = terminate.recv() => Err(DemoError::Interrupted.into()),
        _ = interrupt.recv() => Err(DemoError::Interrupted.into()),
    };
    demo.take_down(stage, &story, ended.as_ref().err()).await;
    if let Err(error) = ended
        && error.downcast_ref() == Some(&DemoError::Interrupted)
    {
        return Err(error);
    }
    if demo.print_table() { Ok(()) } else { Err(DemoError::NotRight.into()) }
}
