//! Restarts of a CAN adapter, which make it discard frames.

use std::time::Duration;

use connector_hal::can::{CanBus, CanSettings};

use super::open::CanBusError;
use crate::relay::buses::bus::Driven;

/// The pause before the adapter restarts after bus-off.
pub(super) const BUS_OFF_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of one turn of the driver of a CAN bus.
pub(super) type CanDriven = Driven<Box<dyn CanBus>, CanBusError>;

/// Sets the adapter up again, which makes it discard the frames of the agent.
pub(super) fn set_up_again(settings: CanSettings) -> CanDriven {
    Driven::Restart(Box::new(move |mut device: Box<dyn CanBus>| {
        Box::pin(async move {
            device.configure(settings).await?;
            Ok(device)
        })
    }))
}

/// Restarts the adapter after a pause, which makes it discard the frames of the kernel.
pub(super) fn restart(pause: Duration) -> CanDriven {
    Driven::Restart(Box::new(move |mut device: Box<dyn CanBus>| {
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            device.restart().await?;
            Ok(device)
        })
    }))
}

/// Keeps the adapter away from the bus: it only listens, if it can.
pub(super) fn stay_off(settings: CanSettings) -> CanDriven {
    Driven::Restart(Box::new(move |mut device: Box<dyn CanBus>| {
        Box::pin(async move {
            if device.capabilities().listen_only {
                device.configure(CanSettings { listen_only: true, ..settings }).await?;
            }
            Ok(device)
        })
    }))
}
