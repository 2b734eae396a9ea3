//! The sentences that `connector-agent vin` prints.

use std::fmt::Write as _;

use crate::config::DoipPort;
use crate::vehicle::bit_rate::GiveUp;
use crate::vehicle::vin::{BusEnd, BusReading, VehicleReading};

/// The result of a reading for people. `networks` are the ports of the DoIP networks.
pub(super) fn in_words(reading: &VehicleReading, networks: &[DoipPort]) -> String {
    let report = &reading.report;
    let elapsed = report.elapsed.as_millis();
    let (Some(vin), Some(source), Some(address)) = (report.vin, report.source, report.address) else {
        return format!("No VIN could be read ({elapsed} ms): {}", why_not(reading, networks));
    };
    let mut text = format!("The VIN is {vin}, read from the ECU at {address} by {source} in {elapsed} ms.");
    for other in report.conflict.iter().filter(|candidate| candidate.vin != vin) {
        // writing to a String cannot fail
        let _ = write!(text, "\nThe ECU at {} disagrees: {}, by {}.", other.address, other.vin, other.source);
    }
    text
}

/// The reason for each bus, line and network.
fn why_not(reading: &VehicleReading, networks: &[DoipPort]) -> String {
    let buses = reading.buses.iter().map(|bus| format!("on {}, {}", bus.bus.device(), bus_reason(bus)));
    let lines = reading.lines.iter().map(|line| {
        let reason = match &line.error {
            Some(error) => error.to_string(),
            None => "no ECU answered a VIN: is the plug in, and the ignition on?".to_owned(),
        };
        format!("on {}, {reason}", line.device)
    });
    let networks = networks.iter().zip(&reading.networks).map(|(port, network)| {
        let advice = if network.late.is_some() { "; a higher --budget-ms gives it more time" } else { "" };
        format!("on {}, {}{advice}", port.device, network.why_not)
    });
    buses.chain(lines).chain(networks).collect::<Vec<_>>().join("; ")
}

fn bus_reason(bus: &BusReading) -> String {
    match &bus.end {
        BusEnd::Answered | BusEnd::NotAnswered => "no ECU answered a VIN".to_owned(),
        BusEnd::OtherTester => {
            "another tester is in use, so nothing more was sent: try again when it has finished".to_owned()
        }
        BusEnd::GivenUp(why) => give_up_reason(*why).to_owned(),
        BusEnd::Stopped => "the time was up".to_owned(),
        BusEnd::Failed(error) => error.to_string(),
    }
}

/// The reason why a CAN bus was not asked, with advice.
pub(super) fn give_up_reason(why: GiveUp) -> &'static str {
    match why {
        GiveUp::NoNode => "no other node is on the bus: is the plug in, and the ignition on?",
        GiveUp::UnknownBitRate => {
            "the bus has none of the bit rates that were tried, so nothing was sent; try --bit-rate"
        }
        GiveUp::Refused => "the adapter supports none of the bit rates",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use connector_hal::can::CanId;

    use super::*;
    use crate::vehicle::vin::{Candidate, VinReport, VinSource};

    fn candidate(vin: &str, address: u32) -> Candidate {
        let address = CanId::try_from(address).unwrap().into();
        Candidate { vin: vin.parse().unwrap(), source: VinSource::Obd, address }
    }

    #[test]
    fn text_output_is_a_sentence() {
        let candidates = [candidate("1M8GDM9AXKP042788", 0x7E8), candidate("WVWZZZ1KZ6W000001", 0x7EA)];
        let words = |candidates: &[Candidate]| {
            let report = VinReport::from_candidates(candidates, Duration::from_millis(84));
            in_words(&VehicleReading { report, buses: vec![], networks: vec![], lines: vec![] }, &[])
        };
        assert_eq!(
            words(&candidates[..1]),
            "The VIN is 1M8GDM9AXKP042788, read from the ECU at 0x7E8 by OBD in 84 ms."
        );
        assert_eq!(
            words(&candidates),
            "The VIN is 1M8GDM9AXKP042788, read from the ECU at 0x7E8 by OBD in 84 ms.\n\
             The ECU at 0x7EA disagrees: WVWZZZ1KZ6W000001, by OBD."
        );
    }
}
