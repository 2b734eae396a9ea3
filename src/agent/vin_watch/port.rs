//! One CAN port while nothing is asked on it.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::can::{CanBus, CanError, CanEvent, CanSettings};

use crate::vehicle::reopened::{OpeningDevice, Reopened};
use crate::vehicle::vin::{BusEnd, BusReading};
use crate::vehicle::wake_watch::{DEFAULT_SILENCE, WakeReason, WakeWatch};

/// The most events taken from one bus before the others get their turn: 15 ms of a full bus at 500 kbit/s.
const BATCH: usize = 64;

/// The device of a CAN port, on which the agent only listens.
pub(super) struct WatchedPort {
    device: Reopened<Box<dyn CanBus>, CanError>,
    watch: WakeWatch,
    /// The time of the last frame.
    last_frame: Option<Instant>,
    /// `None` if the bit rate is unknown.
    settings: Option<CanSettings>,
}

impl WatchedPort {
    /// A port whose device is opened by the first poll. `bit_rate` is in bit/s.
    pub(super) fn new(bit_rate: Option<u32>, now: Instant) -> Self {
        // on a bus that was silent before, the first frame is news
        let silence = if bit_rate.is_some() { DEFAULT_SILENCE } else { Duration::ZERO };
        let listen = |bit_rate| CanSettings { bit_rate, data_bit_rate: None, listen_only: true };
        Self {
            device: Reopened::closed(now),
            watch: WakeWatch::new(silence, now),
            last_frame: None,
            settings: bit_rate.map(listen),
        }
    }

    /// Takes over a bus on which the VIN was just read.
    pub(super) fn adopt(&mut self, reading: BusReading, now: Instant) {
        if let BusEnd::Failed(error) = &reading.end {
            tracing::debug!(%error, "the CAN device failed while the VIN was read");
            return;
        }
        *self = Self { device: Reopened::open(reading.bus), ..Self::new(reading.bit_rate, now) };
    }

    /// Reading the VIN left this port without a device: the device's return will be news.
    pub(super) fn expect_device(&mut self) {
        if self.device.get().is_none() {
            self.watch.handle_device(false);
        }
    }

    pub(super) fn last_frame(&self) -> Option<Instant> {
        self.last_frame
    }

    /// The time of the next attempt to open the device, while the device is lost.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.device.retry_at()
    }

    /// Listens, or opens the device. Returns the reason to read the VIN again, if there is one.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        open: impl Fn() -> OpeningDevice<Box<dyn CanBus>, CanError>,
    ) -> Option<WakeReason> {
        if self.device.get().is_some() {
            return self.poll_events(cx, now);
        }
        let settings = self.settings;
        let opened = self.device.poll(cx, now, || {
            let opening = open();
            Box::pin(async move {
                let mut device = opening.await?;
                if let Some(settings) = settings.filter(|_| device.capabilities().listen_only) {
                    device.configure(settings).await?;
                }
                Ok(device)
            })
        });
        let Poll::Ready(opened) = opened else { return None };
        cx.waker().wake_by_ref();
        if let Err(error) = &opened {
            tracing::debug!(%error, "the CAN device cannot be used");
        }
        self.watch.handle_device(opened.is_ok())
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<WakeReason> {
        let device = self.device.get_mut()?;
        for _ in 0..BATCH {
            match device.poll_event(cx) {
                Poll::Ready(Ok(CanEvent::Received { frame, at })) => {
                    if frame.is_error() {
                        continue;
                    }
                    self.last_frame = Some(at);
                    if let Some(reason) = self.watch.handle_frame(at) {
                        // the reason may have to wait, and the rest of the events may not
                        cx.waker().wake_by_ref();
                        return Some(reason);
                    }
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "lost the CAN device; opening it again every second");
                    self.watch.handle_device(false);
                    self.device.lose(now);
                    break;
                }
                Poll::Pending => return None,
            }
        }
        cx.waker().wake_by_ref();
        None
    }
}
