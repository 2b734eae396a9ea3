//! The contradictions in the `[[bus]]` tables.

use std::collections::HashMap;

use connector_hal::can::CanDevice;
use connector_hal::kline;

use crate::config::bit_rates::{CAN_BIT_RATES, KLINE_BIT_RATES};
use crate::config::doip_device::DoipDevice;
use crate::config::ports::IsotpStack;
use crate::config::problem::ConfigProblem;
use crate::config::sections::{BusKind, ConfiguredBus};

/// The pins of DoIP's two options (ISO 13400-4).
const DOIP_PINS: [&[u8]; 2] = [&[1, 9], &[3, 11]];

/// The pins of ground and battery (SAE J1962).
const SUPPLY_PINS: [u8; 3] = [4, 5, 16];

/// The device of a bus.
#[derive(PartialEq, Eq, Hash)]
enum BusDevice {
    Can(CanDevice),
    /// A serial device's path.
    Kline(String),
    Doip(DoipDevice),
}

/// Everything that is wrong with the buses.
pub(super) fn check(buses: &[ConfiguredBus]) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    if buses.is_empty() {
        let fix = "add a [[bus]] to read the VIN and to relay";
        problems.push(ConfigProblem::warning("no bus is configured", fix).at_key("bus"));
    }
    let mut seen = SeenBuses::default();
    for (index, bus) in buses.iter().enumerate() {
        let mut faults = Faults { index, problems: &mut problems };
        check_pins(bus, &mut faults);
        check_bit_rates(bus, &mut faults);
        let device = check_device(bus, &mut faults);
        seen.check_unique(index, bus, device, &mut faults);
    }
    problems
}

/// The problems with the bus of this index.
struct Faults<'a> {
    index: usize,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Faults<'_> {
    fn add(&mut self, key: &str, what: impl Into<String>, fix: &str) {
        self.problems.push(ConfigProblem::error(what, fix).at_key(format!("bus[{}].{key}", self.index)));
    }
}

fn check_pins(bus: &ConfiguredBus, faults: &mut Faults<'_>) {
    match (bus.kind, bus.pins.as_slice()) {
        (BusKind::Can, [high @ 1..=16, low @ 1..=16]) if high != low => {}
        (BusKind::Can, _) => faults.add("pins", "not a pair of pins", "set CAN high and CAN low, of 1 to 16"),
        (BusKind::Kline, [1..=16]) => {}
        (BusKind::Kline, _) => faults.add("pins", "not one pin", "set the K-line's one pin, of 1 to 16"),
        (BusKind::Doip, pins) if DOIP_PINS.contains(&pins) => {}
        (BusKind::Doip, _) => {
            faults.add("pins", "not pins of DoIP", "set [1, 9] for option 1, or [3, 11] for option 2");
        }
    }
    if let Some(pin) = bus.pins.iter().find(|pin| SUPPLY_PINS.contains(pin)) {
        let what = format!("pin {pin} is {}", if *pin == 16 { "the battery's" } else { "ground" });
        faults.add("pins", what, "set the pins that the adapter is wired to");
    }
    if bus.kind == BusKind::Kline && bus.fd {
        faults.add("fd", "a K-line has no CAN FD", "remove it");
    }
}

fn check_bit_rates(bus: &ConfiguredBus, faults: &mut Faults<'_>) {
    let allowed: &[u32] = if bus.kind == BusKind::Kline { &KLINE_BIT_RATES } else { &CAN_BIT_RATES };
    if bus.bit_rates().is_empty() {
        faults.add("bit_rates", "empty", "set at least one, or remove it for the default");
    }
    for rate in bus.bit_rates().iter().filter(|rate| !allowed.contains(rate)) {
        let allowed = allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        faults.add("bit_rates", format!("no such bit rate: {rate}"), &format!("set some of {allowed}"));
    }
}

/// The device that the bus names, if its name can be understood.
fn check_device(bus: &ConfiguredBus, faults: &mut Faults<'_>) -> Option<BusDevice> {
    let (device, kind, fix) = match bus.kind {
        BusKind::Can => {
            let device = bus.device.parse().map(BusDevice::Can).ok();
            (device, "CAN device", "write it like can0 or slcan:/dev/ttyACM0")
        }
        BusKind::Kline => {
            let path = kline::device_path(&bus.device).ok();
            (
                path.map(|path| BusDevice::Kline(path.to_owned())),
                "K-line device",
                "write it like /dev/ttyUSB0",
            )
        }
        BusKind::Doip => {
            let device = bus.device.parse().map(BusDevice::Doip).ok();
            (
                device,
                "network interface or gateway",
                "write an interface like eth0, or a gateway's address like 192.168.7.2",
            )
        }
    };
    match &device {
        None => faults.add("device", format!("`{}` is not a {kind}", bus.device), fix),
        Some(BusDevice::Can(CanDevice::Slcan { .. })) if bus.isotp == IsotpStack::Kernel => {
            faults.add("isotp", "the kernel has no ISO-TP for an SLCAN adapter", "write auto or own");
        }
        Some(_) => {}
    }
    device
}

/// The devices, pins and names of the buses checked so far, with the index of each bus.
#[derive(Default)]
struct SeenBuses<'a> {
    devices: HashMap<BusDevice, usize>,
    pins: HashMap<u8, usize>,
    names: HashMap<&'a str, usize>,
}

impl<'a> SeenBuses<'a> {
    fn check_unique(
        &mut self,
        index: usize,
        bus: &'a ConfiguredBus,
        device: Option<BusDevice>,
        faults: &mut Faults<'_>,
    ) {
        if let Some(first) = device.and_then(|device| self.devices.insert(device, index)) {
            let fix = "set a different device for each bus, or remove one bus";
            faults.add("device", format!("bus[{first}] has the same device"), fix);
        }
        let shared = bus.pins.iter().find_map(|pin| {
            self.pins.insert(*pin, index).filter(|first| *first != index).map(|first| (*pin, first))
        });
        if let Some((pin, first)) = shared {
            faults.add("pins", format!("bus[{first}] has pin {pin} too"), "set different pins for each bus");
        }
        if let Some(first) = bus.name.as_deref().and_then(|name| self.names.insert(name, index)) {
            faults.add(
                "name",
                format!("bus[{first}] has the same name"),
                "set a different name for each bus",
            );
        }
    }
}
