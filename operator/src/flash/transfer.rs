//! The transfer of a firmware in blocks.

use connector_agent::relay::wire::codec::{EventCode, PduFlags};

use super::report::{FlashError, Step};
use crate::client::{Channel, ExchangeError, Item, ResponseKind, failure};

/// How many PDUs may wait on a channel of the connector (relay protocol, section 4).
const CHAIN_PDUS: usize = 64;
/// How many bytes may wait on a channel of the connector.
const CHAIN_BYTES: usize = 512 * 1024;
/// TransferData, the service that carries a block.
const TRANSFER_DATA: u8 = 0x36;
/// The length of a block's service identifier and counter.
const BLOCK_HEADER: usize = 2;
/// The shortest block: its header and one byte.
const SHORTEST_BLOCK: usize = BLOCK_HEADER + 1;

/// The transfer of all blocks. The connector chains the blocks, so that the round trip is paid once.
pub(super) struct Transfer<'a> {
    channel: &'a Channel,
    blocks: Vec<&'a [u8]>,
    /// The number of blocks sent.
    sent: usize,
    /// The number of blocks that the ECU answered.
    answered: usize,
    /// The size of the blocks sent and not answered, as PDUs.
    queued_bytes: usize,
    /// The number of firmware bytes that the ECU confirmed.
    confirmed: usize,
}

impl<'a> Transfer<'a> {
    /// No block of this firmware has been sent yet.
    pub(super) fn new(channel: &'a Channel, firmware: &'a [u8], block_length: usize) -> Self {
        let blocks = firmware.chunks(block_length - BLOCK_HEADER).collect();
        Self { channel, blocks, sent: 0, answered: 0, queued_bytes: 0, confirmed: 0 }
    }

    /// The number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Whether the ECU has answered all blocks.
    pub(super) fn is_complete(&self) -> bool {
        self.answered >= self.blocks.len()
    }

    /// The present step, with the progress.
    pub(super) fn step(&self) -> Step {
        Step::Transfer { confirmed: self.confirmed }
    }

    /// The error of the present step.
    pub(super) fn failed(&self, source: ExchangeError) -> FlashError {
        FlashError::Step { step: self.step(), source }
    }

    /// Sends as many blocks ahead as may wait on the connector.
    pub(super) async fn send_ahead(&mut self) -> Result<(), FlashError> {
        while let Some(block) = self.blocks.get(self.sent)
            && self.sent - self.answered < CHAIN_PDUS
            && self.queued_bytes + block.len() + BLOCK_HEADER <= CHAIN_BYTES
        {
            let pdu = [&[TRANSFER_DATA, counter(self.sent)], *block].concat();
            let flags = PduFlags { chained: true, confirm: false };
            self.channel.send(&pdu, flags).await.map_err(|source| self.failed(source))?;
            self.queued_bytes += pdu.len();
            self.sent += 1;
        }
        Ok(())
    }

    /// Handles an item of the channel; returns the kind of response, if the item is one.
    pub(super) fn handle(&mut self, item: Item) -> Result<Option<ResponseKind>, FlashError> {
        let data = match item {
            Item::Pdu { data, .. } => data,
            // the next TesterPresent comes in 2 s, and the session lasts 5 s
            Item::Event { code: EventCode::KeepAliveFailed, .. } => return Ok(None),
            item => {
                return failure(&item).map_or(Ok(None), |source| Err(self.failed(source)));
            }
        };
        let kind = ResponseKind::of(TRANSFER_DATA, &data);
        match kind {
            ResponseKind::Positive if data.get(1) == Some(&counter(self.answered)) => {
                let block = self.blocks.get(self.answered).map_or(0, |block| block.len());
                self.queued_bytes -= block + BLOCK_HEADER;
                self.confirmed += block;
                self.answered += 1;
            }
            ResponseKind::Positive => {
                return Err(FlashError::Response { step: self.step(), response: data });
            }
            ResponseKind::Negative(code) => {
                return Err(self.failed(ExchangeError::Negative { service: TRANSFER_DATA, code }));
            }
            ResponseKind::Pending | ResponseKind::Unrelated => {}
        }
        Ok(Some(kind))
    }
}

/// The counter of a block: starts at 1, and continues with 0 after 255.
fn counter(block: usize) -> u8 {
    (block + 1) as u8
}

/// The longest block that the positive response to `34` allows, limited to what the relay carries.
pub(super) fn block_length(response: &[u8]) -> Option<usize> {
    let [0x74, format, length @ ..] = response else { return None };
    let length = length.get(..usize::from(format >> 4))?;
    let longest =
        length.iter().fold(0_usize, |longest, byte| longest.saturating_mul(256) + usize::from(*byte));
    let longest = longest.min(CHAIN_BYTES / 2);
    (longest >= SHORTEST_BLOCK).then_some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_length_is_read_in_any_width_and_invalid_ones_are_refused() {
        assert_eq!(block_length(&[0x74, 0x20, 0x0F, 0xFF]), Some(4095));
        assert_eq!(block_length(&[0x74, 0x10, 0x82]), Some(130));
        assert_eq!(block_length(&[0x74, 0x40, 0, 0, 0x10, 0]), Some(4096));
        assert_eq!(block_length(&[0x74, 0xF0]), None);
        assert_eq!(block_length(&[0x74, 0x20, 0, 2]), None);
        assert_eq!(block_length(&[0x74, 0x40, 0xFF, 0xFF, 0xFF, 0xFF]), Some(CHAIN_BYTES / 2));
        assert_eq!(block_length(&[0x7F, 0x34, 0x70]), None);
    }

    #[test]
    fn counters_begin_at_one_and_wrap_to_zero() {
        assert_eq!((counter(0), counter(254), counter(255), counter(256)), (1, 255, 0, 1));
    }
}
