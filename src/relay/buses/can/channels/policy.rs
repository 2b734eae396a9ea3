//! The policy on a CAN bus: it hears the frames, asks for the speed, and sends requests that return control to ECUs.

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanFrame, CanId};

use super::CanChannels;
use crate::policy::IntentTarget;
use crate::relay::buses::channel_setup::ChannelKind;
use crate::relay::channel::CanChannel;

/// The question of OBD for the vehicle's speed, as a single frame: service 01, PID 0D (SAE J1979), padded as ISO
/// 15765-4 requires.
const ASK_SPEED: [u8; 8] = [0x02, 0x01, 0x0D, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC];
/// The identifier of OBD's functional requests (ISO 15765-4, 6.3).
const OBD_REQUEST: CanId = CanId::standard_truncated(0x7DF);
/// How long after requests began to wait for the speed an awaited response no longer holds the question back.
const LATE: Duration = Duration::from_millis(500);
/// The padding of requests in a single frame.
const PADDING: u8 = 0xCC;

impl CanChannels {
    /// Has the requests of a channel judged.
    pub(super) fn apply_policy(&self, channel: &mut CanChannel, kind: &ChannelKind) {
        if let Some(policy) = &self.policy {
            channel.set_policy(policy, kind.target(), kind.framing(self.settings.data_bit_rate.is_some()));
        }
    }

    /// Handles a frame of the vehicle. Returns whether the frame answers a question for the speed.
    pub(super) fn report_heard(&self, now: Instant, frame: &CanFrame) -> bool {
        self.policy.as_ref().is_some_and(|policy| {
            policy.handle_heard_frame(now, frame);
            policy.is_speed_answer(now, frame)
        })
    }

    /// Asks for the vehicle's speed, unless anything else is going on.
    pub(super) fn ask_speed_by_obd(&mut self, now: Instant) -> bool {
        let since = self.policy.as_ref().and_then(|policy| policy.waiting_since(now));
        let is_busy = |channel: &CanChannel| match since {
            Some(since) => channel.is_in_exchange(now, now >= since + LATE),
            None => channel.is_busy(now),
        };
        let is_free = self.state != BusState::Off
            && (since.is_some() || self.is_proved() && self.vin_reader.is_none())
            && self.scanner.is_none()
            && self.own_frames.is_empty()
            && !self.channels.values().any(is_busy);
        let frame = CanFrame::new(OBD_REQUEST, &ASK_SPEED).ok().filter(|_| is_free);
        let is_asked = frame.is_some();
        self.own_frames.extend(frame);
        is_asked
    }

    /// Sends a request to an ECU: by its channel, or in a single frame if raw frames were sent to the ECU.
    pub(super) fn ask_ecu(&mut self, now: Instant, target: IntentTarget, request: &[u8]) -> bool {
        if self.channels.values_mut().any(|channel| channel.ask(now, target, request)) {
            return true;
        }
        let has_channel = self.channels.values().any(|channel| channel.is_to(target));
        let frame = single_frame(target, request).filter(|_| !has_channel && self.state != BusState::Off);
        let is_sent = frame.is_some();
        self.own_frames.extend(frame);
        is_sent
    }
}

/// The request in one frame, if the target is a CAN identifier and the request fits.
fn single_frame(target: IntentTarget, request: &[u8]) -> Option<CanFrame> {
    let IntentTarget::Can { id, extended } = target else { return None };
    let length = u8::try_from(request.len()).ok()?;
    let mut data: Vec<u8> = extended.into_iter().chain([length]).chain(request.iter().copied()).collect();
    if data.len() < 8 {
        data.resize(8, PADDING);
    }
    CanFrame::new(id, &data).ok()
}
