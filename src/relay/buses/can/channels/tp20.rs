//! The TP2.0 channels of a CAN bus. An ECU has at most one, and each has its own identifier.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::protocol::problem::Problem;
use crate::protocol::tp20::{ChannelConfig, LogicalAddress, MAX_PDU};
use crate::relay::buses::channel_setup::{invalid, pdu_settings};
use crate::relay::channel::{CanChannel, OpenFailure, PduChannel, Tp20Transport};
use crate::relay::wire::ProblemKind;
use crate::relay::wire::request::Tp20ChannelConfig;

/// The number of identifiers that can be assigned to ECUs: 0x300 to 0x30F.
const MAX_CHANNELS: u8 = 16;

/// The address of an ECU, and the index of the identifier that it sends with.
type Place = (LogicalAddress, u8);

/// The TP2.0 channels that are open or being opened, by number.
#[derive(Debug, Default)]
pub(super) struct Tp20Channels {
    places: BTreeMap<u16, Place>,
    /// Where the search for a free identifier begins: behind the one that was assigned last. The ECU that used an
    /// identifier before may still answer a disconnect on it.
    next: u8,
}

impl Tp20Channels {
    /// Begins to set up a channel.
    pub(super) fn open(
        &mut self,
        bus_name: &str,
        number: u16,
        config: &Tp20ChannelConfig,
        max_pdu: usize,
        now: Instant,
    ) -> Result<CanChannel, Problem> {
        let address = LogicalAddress::try_from(u32::from(config.logical_address))
            .map_err(|error| invalid(format!("logical_address: {error}.")))?;
        if let Some((other, _)) = self.places.iter().find(|(_, (open, _))| *open == address) {
            let detail = format!(
                "Channel {other} is open to ECU {address} of bus {bus_name:?}, which has one TP2.0 channel at a time."
            );
            return Err(ProblemKind::EcuInUse.problem(detail));
        }
        let is_free = |index: &u8| self.places.values().all(|(_, used)| used != index);
        let Some(index) = (self.next..MAX_CHANNELS).chain(0..self.next).find(is_free) else {
            let detail = format!("Bus {bus_name:?} has {MAX_CHANNELS} TP2.0 channels open already.");
            return Err(ProblemKind::TooManyChannels.problem(detail));
        };
        self.next = (index + 1) % MAX_CHANNELS;
        self.places.insert(number, (address, index));
        let max_pdu = max_pdu.min(MAX_PDU);
        let transport = Tp20Transport::new(ChannelConfig { max_pdu, ..ChannelConfig::new(address, index) });
        let settings = pdu_settings(&config.options);
        Ok(CanChannel::Pdu(Box::new(PduChannel::new(Box::new(transport), settings, now))))
    }

    /// The addresses of the ECUs with a channel.
    pub(super) fn addresses(&self) -> impl Iterator<Item = LogicalAddress> {
        self.places.values().map(|(address, _)| *address)
    }

    /// Removes a channel. Returns the address of its ECU.
    pub(super) fn close(&mut self, number: u16) -> Option<LogicalAddress> {
        self.places.remove(&number).map(|(address, _)| address)
    }
}

/// The problem that the ECU did not open the channel.
pub(super) fn not_opened(bus_name: &str, ecu: Option<LogicalAddress>, failure: OpenFailure) -> Problem {
    let ecu = ecu.map_or_else(|| "the ECU".to_owned(), |address| format!("ECU {address}"));
    let detail = format!("Bus {bus_name:?}, {ecu}: {}.", failure.text);
    if failure.is_refusal {
        ProblemKind::EcuRefused.problem(detail)
    } else {
        ProblemKind::EcuSilent.problem(detail)
    }
}
