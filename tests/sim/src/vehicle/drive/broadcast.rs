//! The brake controller, which broadcasts the speed.

use std::str::FromStr;
use std::time::Duration;

use connector_hal::bus::BusState;
use connector_hal::can::{CanBus, CanEvent, CanFrame, CanId};
use connector_hal::timer::{Deadline, TimerKind};

use super::Drive;
use crate::vehicle::simulation::{BusStep, next_step};

/// The frame that carries the speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeedBroadcast {
    /// The frame's identifier.
    pub id: CanId,
    /// The signal's first bit, counted from the most significant bit of byte 0. It is the most significant bit.
    pub start: u32,
    /// The signal's width in bits.
    pub bits: u32,
    /// km/h for a difference of 1.
    pub scale: f32,
    /// The time between two frames.
    pub period: Duration,
}

impl SpeedBroadcast {
    /// The frame for a speed in km/h.
    fn frame(&self, kmh: f32) -> Option<CanFrame> {
        let most = 1_u64.checked_shl(self.bits)?.checked_sub(2)?;
        let raw = ((kmh / self.scale).round() as u64).min(most);
        let data = raw << 64_u32.checked_sub(self.start + self.bits)?;
        CanFrame::new(self.id, &data.to_be_bytes()).ok()
    }
}

impl FromStr for SpeedBroadcast {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not ID:START:BITS:SCALE, such as 0x3E9:8:16:0.01");
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or_else(wrong);
        let id = next()?;
        let id = id.strip_prefix("0x").map_or_else(|| id.parse(), |hex| u32::from_str_radix(hex, 16));
        let id = CanId::try_from(id.map_err(|_| wrong())?).map_err(|error| error.to_string())?;
        let start: u32 = next()?.parse().map_err(|_| wrong())?;
        let bits: u32 = next()?.parse().map_err(|_| wrong())?;
        let scale: f32 = next()?.parse().map_err(|_| wrong())?;
        if bits == 0 || bits > 32 || start > 63 || start + bits > 64 || scale.is_nan() || scale <= 0.0 {
            return Err(wrong());
        }
        Ok(Self { id, start, bits, scale, period: Duration::from_millis(20) })
    }
}

/// Broadcasts the speed until the bus is gone.
pub(in crate::vehicle) async fn broadcast(
    mut can: Box<dyn CanBus>,
    drive: Drive,
    signal: SpeedBroadcast,
    timer: TimerKind,
) {
    let mut deadline = Deadline::new(timer);
    let mut next = timer.now() + signal.period;
    let mut outgoing = None;
    loop {
        deadline.set(Some(next));
        let step = tokio::select! {
            biased;
            step = next_step(&mut *can, outgoing.as_ref()) => step,
            () = deadline.expired() => {
                outgoing = drive.speed().and_then(|kmh| signal.frame(kmh));
                next = timer.now() + signal.period;
                continue;
            }
        };
        match step {
            BusStep::Accepted => outgoing = None,
            BusStep::Event(CanEvent::State(BusState::Off)) => {
                outgoing = None;
                if let Err(error) = can.restart().await {
                    tracing::warn!(%error, "the brake controller cannot return to the bus");
                }
            }
            BusStep::Event(_) => {}
            BusStep::Failed(error) if error.is_fatal() => return,
            BusStep::Failed(_) => outgoing = None,
        }
    }
}
