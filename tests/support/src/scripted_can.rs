//! A CAN adapter without a bus, whose events a script decides.

use std::task::{Context, Poll};
use std::time::Duration;

use connector_hal::bus::BusStatus;
use connector_hal::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use connector_hal::future::BoxFuture;

/// The behaviour of an adapter.
pub trait Script: Send {
    /// By default, the adapter sends and receives classic frames at every bit rate.
    fn capabilities(&self) -> CanCapabilities {
        CanCapabilities { fd: false, listen_only: true, set_bit_rate: true, confirms_transmission: true }
    }

    fn configure(&mut self, _settings: CanSettings) {}

    /// Accepts a frame. By default, the adapter sends the frame immediately and reports no outcome.
    fn poll_send(&mut self, _cx: &mut Context<'_>, _frame: &CanFrame) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<CanEvent>;

    /// Leaves the bus.
    fn leave(&mut self, _patience: Duration) {}
}

/// The adapter.
pub struct ScriptedCan<S>(pub S);

impl<S: Script> CanBus for ScriptedCan<S> {
    fn device(&self) -> &str {
        "scripted"
    }

    fn capabilities(&self) -> CanCapabilities {
        self.0.capabilities()
    }

    fn status(&self) -> BusStatus {
        BusStatus::default()
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        self.0.configure(settings);
        Box::pin(std::future::ready(Ok(())))
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn leave(mut self: Box<Self>, patience: Duration) -> BoxFuture<'static, ()> {
        self.0.leave(patience);
        Box::pin(std::future::ready(()))
    }

    fn set_filters(&mut self, _: &[CanFilter]) -> Result<(), CanError> {
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        self.0.poll_send(cx, frame).map(Ok)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        self.0.poll_event(cx).map(Ok)
    }
}
