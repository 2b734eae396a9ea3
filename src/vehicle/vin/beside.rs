//! Reading the VIN by other ways than CAN.

use std::time::Duration;

use connector_hal::future::BoxFuture;

use crate::config::DoipPort;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::doip::DoipReading;

/// Reading the VIN in another way than by CAN: ends by itself.
pub type BesideCan = BoxFuture<'static, DoipReading>;

/// Reading the VIN on all DoIP networks, each within this time.
pub fn by_doip(hardware: &Hardware, budget: Duration) -> Vec<BesideCan> {
    let network = hardware.doip.network(hardware.doip.network_configuration);
    let reading = |port: &DoipPort| {
        let opening =
            (hardware.open_doip)(port, &network, crate::vehicle::doip_network::linux::Purpose::Talk);
        Box::pin(crate::vehicle::vin::doip::open_and_read(opening, network.clone(), budget)) as BesideCan
    };
    hardware.doip_ports.iter().map(reading).collect()
}
