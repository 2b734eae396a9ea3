//! The shell around a check of a bit rate: sets the adapter up to listen, and passes on what it hears.

use connector_hal::can::{CanBus, CanBusExt as _, CanError, CanSettings};
use connector_hal::timer::{Deadline, TimerKind};

use super::check::{BitRateCheck, CheckStep, CheckVerdict};
use super::hear_out::hear_out;

/// Listens whether the bus has this bit rate; `None` if the adapter cannot listen only. The adapter is left listening.
///
/// # Errors
///
/// The adapter failed.
pub(crate) async fn verify_bit_rate(
    bus: &mut dyn CanBus,
    settings: CanSettings,
    timer: TimerKind,
) -> Result<Option<CheckVerdict>, CanError> {
    let capabilities = bus.capabilities();
    if !capabilities.listen_only || !capabilities.set_bit_rate {
        return Ok(None);
    }
    let mut check = BitRateCheck::new(settings.bit_rate);
    let mut deadline = Deadline::new(timer);
    loop {
        match check.poll_step() {
            Some(CheckStep::End(verdict)) => return Ok(Some(verdict)),
            Some(CheckStep::Listen(bit_rate)) => {
                let is_wanted = bit_rate == settings.bit_rate;
                let data_bit_rate = settings.data_bit_rate.filter(|_| is_wanted);
                let listen = CanSettings { bit_rate, data_bit_rate, listen_only: true };
                match bus.configure(listen).await {
                    Ok(()) => check.handle_configured(timer.now()),
                    Err(error) if error.is_fatal() => return Err(error),
                    Err(_) if is_wanted => return Ok(None),
                    Err(_) => check.handle_refused(timer.now()),
                }
            }
            None => {
                deadline.set(check.poll_timeout());
                tokio::select! {
                    biased;
                    event = bus.event() => check.handle_event(timer.now(), &event?),
                    () = deadline.expired() => {
                        if check.is_at_wanted() {
                            let listens = |event: &_| {
                                check.handle_event(timer.now(), event);
                                check.poll_timeout().is_some()
                            };
                            hear_out(bus, listens).await?;
                        }
                        check.handle_timeout(timer.now());
                    }
                }
            }
        }
    }
}
