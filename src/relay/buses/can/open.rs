//! Opening the adapter of a CAN bus. An adapter goes active only on a bus that is silent or has its bit rate.

use connector_hal::can::{CanBus, CanError};
use connector_hal::future::BoxFuture;
use connector_hal::timer::TimerKind;

use super::setup::CanBusSetup;
use crate::vehicle::bit_rate::{CheckVerdict, verify_bit_rate};

/// Why the adapter of a CAN bus is not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CanBusError {
    /// The adapter failed, or refuses the settings.
    #[error(transparent)]
    Can(#[from] CanError),
    /// The bus is in use at another bit rate.
    #[error("{}", describe(*wanted, *heard))]
    WrongBitRate {
        /// The bit rate of the operator, in bit/s.
        wanted: u32,
        /// The bit rate at which frames were heard, in bit/s.
        heard: Option<u32>,
    },
}

fn describe(wanted: u32, heard: Option<u32>) -> String {
    match heard {
        Some(heard) => format!("the bus has {heard} bit/s, not {wanted} bit/s"),
        None => format!(
            "at {wanted} bit/s only errors are heard, and no frame; on a bench, set \"verify\": false in can_bus"
        ),
    }
}

/// Sets an adapter up as the operator wants, after listening whether the bus has this bit rate.
pub(super) fn open(
    opening: BoxFuture<'static, Result<Box<dyn CanBus>, CanError>>,
    setup: &CanBusSetup,
    timer: TimerKind,
) -> BoxFuture<'static, Result<Box<dyn CanBus>, CanBusError>> {
    let (settings, verify) = (setup.settings, setup.verify);
    Box::pin(async move {
        let mut device = opening.await?;
        if verify
            && let Some(verdict) = verify_bit_rate(device.as_mut(), settings, timer).await?
            && let CheckVerdict::Wrong { heard } = verdict
        {
            return Err(CanBusError::WrongBitRate { wanted: settings.bit_rate, heard });
        }
        device.configure(settings).await?;
        Ok(device)
    })
}
