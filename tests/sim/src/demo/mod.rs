//! The demo: vehicle, cloud, network, agent, customer and operator in one process tree, with one line for
//! each step.

pub(crate) mod agent;
mod agent_setup;
mod args;
mod bus_limit;
mod demo_vehicle;
mod driving;
mod duration;
mod flashing;
mod kline;
mod portal;
mod reading;
mod session;
mod stage;
mod story;
mod tp20;

use tokio::signal::unix::{SignalKind, signal};

pub(crate) use args::Args;

use args::Bus;
use session::Demo;
use stage::Stage;
use story::Story;

/// The demo ended, but not every check was right. The demo has already printed the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DemoError {
    /// A check was wrong, or the demo broke off.
    #[error("not every check was right: see above")]
    NotRight,
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// The exit code.
    pub(crate) fn exit_code(self) -> u8 {
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
/// Returns the error that prevented the setup, or a [`DemoError`].
pub(crate) async fn run(mut args: Args) -> anyhow::Result<()> {
    if args.doip {
        args.bus = Bus::Doip;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let story = Story::new();
    if args.bus == Bus::Kline {
        let right = tokio::select! {
            right = kline::play(&args, &story) => right?,
            _ = terminate.recv() => return Err(DemoError::Interrupted.into()),
            _ = interrupt.recv() => return Err(DemoError::Interrupted.into()),
        };
        return if right { Ok(()) } else { Err(DemoError::NotRight.into()) };
    }
    let mut stage = tokio::select! {
        stage = Stage::set_up(&args, &story) => stage?,
        _ = terminate.recv() => return Err(DemoError::Interrupted.into()),
        _ = interrupt.recv() => return Err(DemoError::Interrupted.into()),
    };
    let mut demo = Demo::default();
    let ended = tokio::select! {
        ended = demo.play(&mut stage, &story, args.portal.as_deref()) => ended,
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
