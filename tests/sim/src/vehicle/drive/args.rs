//! The arguments about the drive, and the commands on standard input.

use std::path::PathBuf;
use std::time::Duration;

use connector_agent::print_line;
use connector_hal::timer::TimerKind;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Drive, DriveCommand, DriveScript, SpeedBroadcast};

/// The period of the brake controller's frames, in milliseconds.
const PERIOD: u64 = 20;

/// The arguments of `connector-sim vehicle` about the drive.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DriveArgs {
    /// Drive as this script says: moments and speeds in km/h, between which the speed changes evenly. "lost" instead of
    /// a speed loses the brake controller.
    #[arg(long, value_name = "\"0s 0, 5s 50, 20s 0\"")]
    drive: Option<DriveScript>,
    /// Broadcast the speed every 20 ms: identifier, first bit from the most significant bit of byte 0, number of bits,
    /// km/h for a difference of 1.
    #[arg(long, value_name = "0x3E9:8:16:0.01")]
    speed_signal: Option<SpeedBroadcast>,
    /// The file with the voltage in millivolts that the board of the connector reads, for the command "volts".
    #[arg(long, value_name = "FILE")]
    voltage_file: Option<PathBuf>,
    /// Read commands from standard input, one a line: speed KMH, brake, engine on|off, abs lost|back, volts V. The
    /// answer is a line of JSON.
    #[arg(long)]
    commands: bool,
}

impl DriveArgs {
    /// The signal that the vehicle broadcasts.
    pub(crate) fn signal(&self) -> Option<SpeedBroadcast> {
        self.speed_signal.map(|signal| SpeedBroadcast { period: Duration::from_millis(PERIOD), ..signal })
    }

    /// Drives by script and commands, without an end.
    pub(crate) async fn serve(&self, drive: &Drive) {
        let mut commands = self.commands.then(lines);
        if let Some(script) = &self.drive {
            tokio::select! {
                () = drive.follow(script, TimerKind::Runtime) => {}
                () = self.obey(&mut commands, drive) => {}
            }
        }
        self.obey(&mut commands, drive).await;
    }

    async fn obey(&self, commands: &mut Option<mpsc::UnboundedReceiver<String>>, drive: &Drive) {
        while let Some(commands) = commands {
            let Some(line) = commands.recv().await else { break };
            let done = line
                .parse::<DriveCommand>()
                .and_then(|command| command.carry_out(drive, self.voltage_file.as_deref()));
            let answer = match done {
                Ok(()) => json!({"speed_kmh": drive.speed(), "engine": drive.is_engine_on()}),
                Err(error) => json!({ "error": error }),
            };
            print_line!("{answer}");
        }
        std::future::pending().await
    }
}

/// The lines of standard input. A thread reads them: the runtime would wait for a pending read at its end.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if !line.trim().is_empty() && sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
