//! The demo of the policy beside the vehicle: the connector refuses to flash while the vehicle drives, and until the
//! person at the vehicle agrees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::Switch;
use connector_hal::timer::TimerKind;
use connector_operator::client::{Connection, ExchangeError, PolicyView, Timing};
use connector_operator::flash::{Firmware, FlashError, flash};

use super::demo_vehicle::CAN_BUS;
use super::stage::Stage;
use super::story::{ResultTable, Story};
use crate::scenario::{FIRMWARE_ADDRESS, toml_string, write_private};
use crate::vehicle::drive::{DriveScript, SpeedBroadcast};
use crate::vehicle::{Drive, VehicleConfig};

/// The speed before the vehicle brakes, in km/h.
const SPEED: f32 = 50.0;
/// How the vehicle brakes.
const BRAKING: &str = "0s 50, 2s 0";
/// The frame in which the brake controller broadcasts the speed.
const SPEED_SIGNAL: &str = "0x3E9:8:16:0.01";
/// The class of requests that the person at the vehicle is asked for.
const CLASS: &str = "programming";
/// The time until the person at the vehicle sees the LED: longer than the half second in which a press does not count.
const REACTION: Duration = Duration::from_secs(1);
/// A short press: longer than the time between two readings of the button, and shorter than a refusal.
const PRESS: Duration = Duration::from_millis(700);
/// Limit for the connector to report a state, over the worst network that the arguments allow.
const REPORTED: Duration = Duration::from_secs(60);

/// The drive of the vehicle, and the file that the connector reads its button from.
pub(super) struct Driving {
    drive: Drive,
    button: PathBuf,
}

impl Driving {
    /// A vehicle that drives, and a connector whose button is released. The button's file is in `directory`.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let button = directory.join("button");
        write_private(&button, "0\n")?;
        let drive = Drive::default();
        drive.set_speed(SPEED);
        Ok(Self { drive, button })
    }

    /// Lets the vehicle of this configuration drive, and broadcast its speed.
    pub(super) fn add_to(&self, config: &mut VehicleConfig) {
        config.drive = self.drive.clone();
        config.speed_signal = SPEED_SIGNAL.parse::<SpeedBroadcast>().ok();
    }

    /// The button of the section `[board]`, and the section `[policy]`, of the agent's configuration.
    pub(super) fn sections(&self) -> String {
        let button = toml_string(&self.button.to_string_lossy());
        format!(
            "button = {{ file = {button} }}\n\n\
             [policy.require]\nprogramming = [\"not-moving\", \"voltage\", \"consent\"]\n\n\
             [policy.facts]\n\
             speed = [{{ bus = \"{CAN_BUS}\", id = 0x3E9, start = 8, bits = 16, scale = 0.01 }}]\n"
        )
    }

    /// Tries to flash while the vehicle drives, lets the vehicle brake, and lets the person at the vehicle agree.
    pub(super) async fn play(
        &self,
        stage: &Stage,
        story: &Story,
        connection: &Connection,
        place: usize,
        table: &mut ResultTable,
    ) -> anyhow::Result<()> {
        story.report("vehicle", &format!("drives at {SPEED} km/h"));
        let refusal = try_to_flash(stage, story, connection, place).await?;
        table.check("Flash while driving", short(&refusal), refusal.starts_with("policy: moving"));

        story.report("vehicle", "brakes");
        let braking: DriveScript = BRAKING.parse().map_err(anyhow::Error::msg)?;
        self.drive.follow(&braking, TimerKind::Runtime).await;
        let state =
            reported(connection, "that the vehicle stands", |state| state.motion == "stationary").await?;
        story.report("connector", &format!("reports: {state}"));

        let refusal = try_to_flash(stage, story, connection, place).await?;
        table.check("Flash without consent", short(&refusal), refusal.starts_with("policy: consent"));
        let target = stage.record.ecus.get(place).context("the ECU to flash")?;
        let untouched = stage.vehicle.memory(place, target).is_empty();
        table.check("ECU until then", if untouched { "untouched" } else { "programmed" }, untouched);
        self.agree(story, connection, table).await
    }

    /// Asks the person at the vehicle, who presses the button.
    async fn agree(
        &self,
        story: &Story,
        connection: &Connection,
        table: &mut ResultTable,
    ) -> anyhow::Result<()> {
        let time = connection.request_consent(CLASS, "new software for the engine").await?;
        story.report("operator", &format!("asks for consent; the LED flashes for {} s", time.as_secs()));
        tokio::time::sleep(REACTION).await;
        self.set_button("1\n").await?;
        tokio::time::sleep(PRESS).await;
        self.set_button("0\n").await?;
        story.report("driver", "presses the button of the connector");
        let state = reported(connection, "the consent", |state| state.is_agreed(CLASS)).await?;
        story.report("connector", &format!("reports: {state}"));
        table.check("Consent", "given by the button", state.is_agreed(CLASS));
        Ok(())
    }

    async fn set_button(&self, level: &str) -> anyhow::Result<()> {
        tokio::fs::write(&self.button, level).await.context("the file of the button")
    }
}

/// Flashes, which the connector is expected to refuse. Returns the reason.
async fn try_to_flash(
    stage: &Stage,
    story: &Story,
    connection: &Connection,
    place: usize,
) -> anyhow::Result<String> {
    let target = stage.record.ecus.get(place).context("the ECU to flash")?;
    story.report("operator", &format!("flashes {} ({})", target.name, stage.vehicle.name(place, target)));
    let channel = stage.vehicle.open(connection, place, target, Switch::Disabled).await?;
    let firmware = Firmware { address: FIRMWARE_ADDRESS, data: &stage.firmware };
    let flashed = flash(&channel, firmware, &Timing::default(), &mut |_| {}).await;
    connection.close_channel(channel).await?;
    match flashed {
        Err(FlashError::Step { source: ExchangeError::NotSent(failure), .. }) if failure.is_by_policy() => {
            story.report("connector", &format!("refuses: {failure}"));
            Ok(failure.text)
        }
        Err(error) => Err(error).context("the connector's policy should have refused this"),
        Ok(_) => anyhow::bail!("the connector did not refuse this"),
    }
}

/// The reason of a refusal, without what was refused and what to do.
fn short(refusal: &str) -> String {
    format!("refused by {}", refusal.split(": ").take(2).collect::<Vec<_>>().join(": "))
}

/// Waits until the connector reports such a state of its policy.
async fn reported(
    connection: &Connection,
    what: &str,
    is_such: impl Fn(&PolicyView) -> bool,
) -> anyhow::Result<PolicyView> {
    let mut policy = connection.policy();
    let state = policy.wait_for(|state| state.as_ref().is_some_and(&is_such));
    let state = tokio::time::timeout(REPORTED, state).await;
    let state = state.with_context(|| format!("the connector does not report {what}"))??.clone();
    state.context("the connector reports no state of its policy")
}
