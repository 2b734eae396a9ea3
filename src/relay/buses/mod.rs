//! The buses of a connection: one folder for each kind of bus, and one shell that all kinds share.
//!
//! [`Channels`] is the pure part of a bus, [`bus::Bus`] the shell, and [`bus::BusDriver`] the part of the
//! shell that knows the device of one kind of bus. A new kind of bus is a folder with channels, driver and
//! set-up, and one arm in [`build`].

pub(crate) mod bus;
pub(crate) mod bus_setup;
pub mod can;
pub(crate) mod channel_setup;
mod channels;
mod doip;
mod kline;
mod terminal15;

use connector_hal::timer::TimerKind;

pub use channels::{Channels, Opening};

use crate::policy::BusPolicy;
use crate::vehicle::hardware::Hardware;
use bus::{AnyBus, Bus};
use bus_setup::BusSetup;
use can::CanDriver;
use can::channels::CanChannels;
use doip::{DoipChannels, DoipDriver};
use kline::{KlineChannels, KlineDriver};
use terminal15::{Terminal15Channels, Terminal15Driver};

/// Builds the bus that an operator requested. Its device is opened when the bus is polled.
pub(crate) fn build(
    setup: BusSetup,
    hardware: &Hardware,
    ignition: Option<bool>,
    policy: BusPolicy,
) -> Box<dyn AnyBus> {
    let (name, timer) = (setup.name().to_owned(), hardware.timer);
    let mut bus: Box<dyn AnyBus> = match setup {
        BusSetup::Can(can) => {
            let channels =
                CanChannels::new(name.clone(), can.settings, can.port.isotp).with_proof(can.verify);
            Box::new(Bus::new(name, channels, CanDriver::new(can, hardware), timer))
        }
        BusSetup::Kline(kline) => {
            let channels = KlineChannels::new(&kline, timer.now());
            Box::new(Bus::new(name, channels, KlineDriver::new(kline, hardware), timer))
        }
        BusSetup::Doip(doip) => {
            let channels = DoipChannels::new(&doip, &hardware.doip);
            Box::new(Bus::new(name, channels, DoipDriver::new(doip, hardware), TimerKind::Runtime))
        }
        BusSetup::Terminal15 { .. } => {
            let channels = Terminal15Channels::new(name.clone(), ignition);
            Box::new(Bus::new(name, channels, Terminal15Driver, TimerKind::Runtime))
        }
    };
    bus.channels_mut().set_policy(policy);
    bus
}
