//! The agent: one task that owns the websocket to the cloud, the operator's connection and the board, and
//! decides how an event of one affects the others.
//!
//! | File | Content |
//! |---|---|
//! | `supervisor` | the state of that task |
//! | `event_loop` | the loop: waits for the next event, handles it, sends, updates the LED |
//! | `requests`, `opening` | the requests of cloud and operator; opening a connection |
//! | `connection`, `active_connection` | the open connection: its messages, its ticket, its end |
//! | `ending` | when the agent ends, if the process asks for it during a connection |
//! | `vin`, `vehicle`, `kept_vin` | the times and consequences of reading the VIN, and the VIN from before a restart |
//! | `return_pauses` | when to read the VIN after a device has returned |
//! | `board` | ignition, supply voltage, button |
//! | `consent` | what the person at the vehicle answers, and the facts of the policy |
//! | `led` | the patterns of LED and buzzer |
//! | `reporting` | when to report the state to the cloud |
//! | `power`, `sleep` | when to sleep and when to wake |
//! | `auditing`, `audit_log` | what the policy has refused and allowed, in the state directory |
//! | `background` | requests to the cloud that run beside the loop |
//! | `vin_watch` | the task that reads the VIN |

mod active_connection;
mod audit_log;
mod auditing;
mod background;
mod board;
mod connection;
mod consent;
mod ending;
mod event_loop;
mod kept_vin;
mod led;
mod messages;
mod notify;
mod opening;
mod power;
mod reporting;
mod requests;
mod return_pauses;
mod setup;
mod sleep;
mod supervisor;
mod vehicle;
mod vin;
mod vin_watch;
mod waiting;

use connector_hal::clock::now;
use tokio::sync::mpsc;

pub(crate) use audit_log::{audit_files, read_audit_file};
use event_loop::{RunEnd, Woken};
pub(crate) use notify::Notifier;
use supervisor::Supervisor;
use vin_watch::WatchStart;

pub use setup::{Control, Setup, SetupError};

/// Runs the agent until it receives a [`Control`], and returns that control.
pub async fn run(mut setup: Setup, control: &mut mpsc::Receiver<Control>) -> Result<Control, SetupError> {
    let mut notifier = Notifier::from_environment(now());
    if setup.config.connector.state_directory.is_none() {
        tracing::info!("no state directory: refusals, consent and programming are not recorded");
    }
    let (mut start, mut kept_vin) = (WatchStart::Ordinary, None);
    loop {
        match Supervisor::new(setup, notifier, start, kept_vin)?.run(control).await {
            RunEnd::Control(control) => return Ok(control),
            RunEnd::Woken(woken) => Woken { setup, notifier, start, kept_vin } = *woken,
        }
    }
}
