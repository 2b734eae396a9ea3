//! The end of listening: the errors that an adapter reports late.

use std::future::poll_fn;
use std::task::Poll;

use connector_hal::can::{CanBus, CanError, CanEvent};

/// Passes on the events that the adapter has not reported yet, as long as `listens` returns true.
///
/// # Errors
///
/// The adapter failed.
pub(super) async fn hear_out(
    bus: &mut dyn CanBus,
    mut listens: impl FnMut(&CanEvent) -> bool,
) -> Result<(), CanError> {
    bus.hear_out().await?;
    while let Poll::Ready(event) = poll_fn(|cx| Poll::Ready(bus.poll_event(cx))).await {
        if !listens(&event?) {
            break;
        }
    }
    Ok(())
}
