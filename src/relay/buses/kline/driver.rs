//! Moves bytes between a serial K-line device and the channels of its line.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::future::BoxFuture;
use connector_hal::kline::{KLine, KLineError, KLineEvent};
use connector_hal::timer::{Deadline, TimerKind, has_read_all};

use super::channels::KlineChannels;
use super::setup::KlineBusSetup;
use crate::relay::buses::bus::{BusDriver, Driven};
use crate::relay::buses::channels::Channels;
use crate::relay::wire::ProblemKind;
use crate::vehicle::hardware::Hardware;

/// The number of events that are read from the line before the other buses are polled: 60 ms at 10,400 bit/s,
/// and so more than an adapter delivers in one piece.
const BATCH: usize = 64;
/// The time that a connection has after its end to stop communication with its ECUs. The next connection
/// waits that long for the device. Stopping one ECU takes P3min and a request with its answer, 0.2 s in
/// total; the value is a compromise between several ECUs and an operator who waits.
const STOP_TIME: Duration = Duration::from_secs(1);
/// The pause before a device that the previous connection still uses is opened again. The kernel does not
/// signal that a device is free; the pause is short compared with [`STOP_TIME`].
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Drives the serial device of a K-line.
pub(crate) struct KlineDriver {
    setup: KlineBusSetup,
    hardware: Hardware,
}

impl KlineDriver {
    pub(crate) fn new(setup: KlineBusSetup, hardware: &Hardware) -> Self {
        Self { setup, hardware: hardware.clone() }
    }
}

impl BusDriver for KlineDriver {
    type Channels = KlineChannels;
    type Device = Box<dyn KLine>;
    type Error = KLineError;

    const DEVICE: &str = "K-line device";

    fn open(&self) -> BoxFuture<'static, Result<Self::Device, KLineError>> {
        let open = self.hardware.open_kline.clone();
        let (device, bit_rate) = (self.setup.port.device.clone(), self.setup.bit_rate);
        Box::pin(async move {
            let until = tokio::time::Instant::now() + STOP_TIME;
            let mut line = loop {
                match open(&device).await {
                    // the connection before this one may still be stopping communication
                    Err(KLineError::Device { source, .. })
                        if source.kind() == std::io::ErrorKind::ResourceBusy
                            && tokio::time::Instant::now() < until =>
                    {
                        tokio::time::sleep(BUSY_PAUSE).await;
                    }
                    opened => break opened?,
                }
            };
            line.set_bit_rate(bit_rate)?;
            Ok(line)
        })
    }

    fn problem_kind(error: &KLineError) -> ProblemKind {
        match error {
            KLineError::Unsupported { .. } => ProblemKind::Unsupported,
            _ => ProblemKind::BusUnavailable,
        }
    }

    fn handle_opened(&mut self, now: Instant, _device: &mut Self::Device, channels: &mut KlineChannels) {
        channels.handle_device(now, true);
    }

    fn handle_lost(&mut self, now: Instant, _error: &KLineError, channels: &mut KlineChannels) {
        channels.handle_device(now, false);
    }

    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        device: &mut Self::Device,
        channels: &mut KlineChannels,
    ) -> Driven<Self::Device, KLineError> {
        match turn(channels, device.as_mut(), cx, now) {
            Ok(true) => Driven::Changed,
            Ok(false) => Driven::Idle,
            Err(error) => Driven::Lost(error),
        }
    }

    /// Stops communication with the ECUs in the background.
    fn leave(&mut self, mut device: Self::Device, channels: &mut KlineChannels) {
        if !channels.has_links_to_end() {
            return;
        }
        let timer = self.hardware.timer;
        let mut channels = channels.take(timer.now());
        self.hardware.departures.spawn(async move {
            channels.stop_all();
            let stopped = stop(&mut channels, device.as_mut(), timer);
            let _too_late = tokio::time::timeout(STOP_TIME, stopped).await;
        });
    }
}

/// Handles bytes, then deadlines if no byte is left. Returns whether anything happened.
fn turn(
    channels: &mut KlineChannels,
    device: &mut dyn KLine,
    cx: &mut Context<'_>,
    now: Instant,
) -> Result<bool, KLineError> {
    let (mut changed, mut has_read) = (false, false);
    // bytes first: the bytes that a deadline waits for may not be read yet
    for _ in 0..BATCH {
        match device.poll_event(cx) {
            Poll::Ready(Ok(KLineEvent::Received { byte, at })) => channels.handle_byte(at, byte),
            Poll::Ready(Ok(KLineEvent::Sent { at })) => channels.handle_sent(now, at),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {
                has_read = has_read_all(cx);
                break;
            }
        }
        changed = true;
        transmit(channels, device)?;
    }
    if has_read && channels.poll_timeout().is_some_and(|at| at <= now) {
        changed = true;
        channels.handle_timeout(now);
    }
    Ok(changed | transmit(channels, device)?)
}

fn transmit(channels: &mut KlineChannels, device: &mut dyn KLine) -> Result<bool, KLineError> {
    let mut changed = false;
    while let Some(signal) = channels.poll_transmit() {
        changed = true;
        device.transmit(signal)?;
    }
    Ok(changed)
}

/// Drives a line until all its links have ended.
async fn stop(channels: &mut KlineChannels, device: &mut dyn KLine, timer: TimerKind) {
    let mut deadline = Deadline::new(timer);
    poll_fn(|cx| {
        loop {
            if channels.is_quiet() {
                return Poll::Ready(());
            }
            match turn(channels, device, cx, timer.now()) {
                Ok(true) => continue,
                Ok(false) => deadline.set(channels.poll_timeout()),
                Err(_) => return Poll::Ready(()),
            }
            if deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}
