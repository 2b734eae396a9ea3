//! The bus behind the gateway's SLCAN adapter: accepts every bit rate, and is as fast as the tool.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::bus::BusStatus;
use connector_hal::can::slcan::Controller;
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use connector_hal::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::PollSender;

/// How many frames may wait in each direction. Then the sender waits. The number is 60 ms of a full bus at
/// 500 kbit/s.
const QUEUE: usize = 256;

/// A frame, with the number of the tool's session on the bus.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToolFrame {
    pub(super) visit: u32,
    pub(super) frame: CanFrame,
}

/// The gateway's end of the bus.
#[derive(Debug)]
pub(super) struct ToolEnd {
    pub(super) from_tool: mpsc::Receiver<ToolFrame>,
    pub(super) to_tool: mpsc::Sender<CanEvent>,
    /// Changes whenever a tool joins or leaves the bus.
    pub(super) visit: watch::Receiver<u32>,
}

/// The adapter's end of the bus.
pub(super) struct ToolBus {
    to_gateway: PollSender<ToolFrame>,
    from_gateway: mpsc::Receiver<CanEvent>,
    visit: watch::Sender<u32>,
    on_bus: bool,
    /// The outcomes of the tool's own frames.
    outcomes: VecDeque<CanEvent>,
}

/// Creates a bus with both ends.
pub(super) fn tool_bus() -> (ToolBus, ToolEnd) {
    let (to_gateway, from_tool) = mpsc::channel(QUEUE);
    let (to_tool, from_gateway) = mpsc::channel(QUEUE);
    let (visit, visits) = watch::channel(0);
    let bus = ToolBus {
        to_gateway: PollSender::new(to_gateway),
        from_gateway,
        visit,
        on_bus: false,
        outcomes: VecDeque::new(),
    };
    (bus, ToolEnd { from_tool, to_tool, visit: visits })
}

fn gone() -> CanError {
    let source = io::Error::new(io::ErrorKind::NotConnected, "the gateway ended");
    CanError::Device { device: "gateway".to_owned(), source }
}

impl CanBus for ToolBus {
    fn device(&self) -> &str {
        "gateway"
    }

    fn capabilities(&self) -> CanCapabilities {
        VirtualBus::full_capabilities()
    }

    fn status(&self) -> BusStatus {
        BusStatus::default()
    }

    fn configure(&mut self, _: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        self.leave();
        self.on_bus = true;
        self.visit.send_modify(|visit| *visit = visit.wrapping_add(1));
        Box::pin(async { Ok(()) })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async { Ok(()) })
    }

    fn set_filters(&mut self, _: &[CanFilter]) -> Result<(), CanError> {
        // a tool at an adapter receives all frames
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        let Poll::Ready(room) = self.to_gateway.poll_reserve(cx) else { return Poll::Pending };
        let frame = ToolFrame { visit: *self.visit.borrow(), frame: *frame };
        room.and_then(|()| self.to_gateway.send_item(frame)).map_err(|_| gone())?;
        self.outcomes.push_back(CanEvent::Transmitted { at: Instant::now() });
        Poll::Ready(Ok(()))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        if let Some(outcome) = self.outcomes.pop_front() {
            return Poll::Ready(Ok(outcome));
        }
        self.from_gateway.poll_recv(cx).map(|event| event.ok_or_else(gone))
    }
}

impl Controller for ToolBus {
    fn leave(&mut self) {
        if std::mem::take(&mut self.on_bus) {
            self.visit.send_modify(|visit| *visit = visit.wrapping_add(1));
        }
        self.outcomes.clear();
        while self.from_gateway.try_recv().is_ok() {}
    }
}
