//! Programming an ECU: the sequence of services, with chained blocks, so that the round trip is paid once.

mod crc32;
mod report;
mod toy_key;
mod transfer;

use std::time::Duration;

use connector_agent::relay::wire::codec::SendFailedDetail;
use tokio::time::Instant;

use self::transfer::{Transfer, block_length};
use crate::client::{Channel, ExchangeError, ResponseKind, Timing};

pub use crc32::crc32;
pub use report::{FlashError, FlashReport, Step};
pub use toy_key::toy_key;

/// The security level for programming.
const LEVEL: u8 = 1;
/// The transfer rate of a slow bus, in bytes per second: ISO-TP at 20 kbit/s is a little faster. A block gets
/// this additional time.
const SLOWEST: u32 = 1000;

/// The time for a connector to confirm the VIN: some of its readings, of 1.5 s each.
const VIN_TIME: Duration = Duration::from_secs(10);
/// The pause before a request that the connector refused is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(300);

/// A firmware to program.
#[derive(Debug, Clone, Copy)]
pub struct Firmware<'a> {
    /// The address in the ECU's memory.
    pub address: u32,
    /// The bytes of the firmware.
    pub data: &'a [u8],
}

/// Programs an ECU on this channel, whose keep-alive should be on. `report` receives every step, and a step
/// for every confirmed block. On failure, requests that the ECU returns to its default session.
///
/// # Errors
///
/// The step that failed, and the cause.
pub async fn flash(
    channel: &Channel,
    firmware: Firmware<'_>,
    timing: &Timing,
    report: &mut (dyn FnMut(Step) + Send),
) -> Result<FlashReport, FlashError> {
    let result = Flasher { channel, timing, report }.run(firmware).await;
    if let Err(error) = &result
        && !matches!(error, FlashError::Step { source: ExchangeError::Closed(_), .. })
    {
        // the ECU may not answer any more, and the first error is the one to report
        let patience = Timing { allowance: Duration::from_secs(2), busy_retries: 0, ..*timing };
        if let Err(error) = channel.request(&[0x10, 0x01], &patience).await {
            tracing::debug!(%error, "the ECU does not return to the default session");
        }
    }
    result
}

struct Flasher<'a> {
    channel: &'a Channel,
    timing: &'a Timing,
    report: &'a mut (dyn FnMut(Step) + Send),
}

impl Flasher<'_> {
    async fn run(&mut self, firmware: Firmware<'_>) -> Result<FlashReport, FlashError> {
        let start = Instant::now();
        let size = u32::try_from(firmware.data.len()).ok().filter(|size| *size > 0);
        let size = size.ok_or(FlashError::Size(firmware.data.len()))?;
        self.open_programming_session().await?;
        self.unlock().await?;

        let erasing = Instant::now();
        let erased = self.request(Step::Erase, &[0x31, 0x01, 0xFF, 0x00]).await?;
        if erased.get(4).is_some_and(|status| *status != 0) {
            return Err(FlashError::Response { step: Step::Erase, response: erased });
        }
        let erasing = erasing.elapsed();

        let mut request = vec![0x34, 0x00, 0x44];
        request.extend(firmware.address.to_be_bytes());
        request.extend(size.to_be_bytes());
        let granted = self.request(Step::Download, &request).await?;
        let block_length =
            block_length(&granted).ok_or(FlashError::Response { step: Step::Download, response: granted })?;

        let transferring = Instant::now();
        let blocks = self.transfer(firmware.data, block_length).await?;
        let transferring = transferring.elapsed();
        self.request(Step::Exit, &[0x37]).await?;

        let mut check = vec![0x31, 0x01, 0x02, 0x02];
        check.extend(crc32(firmware.data).to_be_bytes());
        let checked = self.request(Step::Check, &check).await?;
        if checked.get(4) != Some(&0) {
            return Err(FlashError::Checksum);
        }
        self.request(Step::Default, &[0x10, 0x01]).await?;
        let (bytes, total) = (firmware.data.len(), start.elapsed());
        Ok(FlashReport { bytes, blocks, block_length, erasing, transferring, total })
    }

    async fn request(&mut self, step: Step, pdu: &[u8]) -> Result<Vec<u8>, FlashError> {
        (self.report)(step);
        let response = self.channel.request(pdu, self.timing).await;
        response.map(|response| response.data).map_err(|source| FlashError::Step { step, source })
    }

    /// Opens the programming session. A connector that has to confirm the VIN first refuses until it has read the VIN.
    async fn open_programming_session(&mut self) -> Result<(), FlashError> {
        let until = Instant::now() + VIN_TIME;
        loop {
            let opened = self.request(Step::Session, &[0x10, 0x02]).await;
            // what the policy refuses, it refuses again
            let is_refused = matches!(&opened, Err(FlashError::Step { source: ExchangeError::NotSent(failure), .. })
                if failure.detail == SendFailedDetail::RefusedByPolicy as u16 && !failure.is_by_policy());
            if !is_refused || Instant::now() >= until {
                return opened.map(drop);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn unlock(&mut self) -> Result<(), FlashError> {
        let step = Step::Security;
        let response = self.request(step, &[0x27, LEVEL]).await?;
        let seed = match response.as_slice() {
            [0x67, LEVEL, seed @ ..] => <[u8; 4]>::try_from(seed).ok(),
            _ => None,
        };
        let Some(seed) = seed else { return Err(FlashError::Response { step, response }) };
        if seed == [0; 4] {
            return Ok(());
        }
        let mut key = vec![0x27, LEVEL + 1];
        key.extend(toy_key(LEVEL, seed));
        self.request(step, &key).await.map(drop)
    }

    /// Transfers all blocks, and returns their number.
    async fn transfer(&mut self, data: &[u8], block_length: usize) -> Result<usize, FlashError> {
        self.channel.discard_received();
        let limit = self.timing.p2
            + self.timing.allowance
            + Duration::from_secs(1) * u32::try_from(block_length).unwrap_or(u32::MAX) / SLOWEST;
        let mut transfer = Transfer::new(self.channel, data, block_length);
        (self.report)(transfer.step());
        let mut wait = self.channel.wait(limit);
        while !transfer.is_complete() {
            transfer.send_ahead().await?;
            let received = wait.recv().await.map_err(|source| transfer.failed(source))?;
            let Some(received) = received else {
                return Err(transfer.failed(ExchangeError::NoResponse { after: wait.limit() }));
            };
            match transfer.handle(received.item)? {
                Some(ResponseKind::Positive) => {
                    (self.report)(transfer.step());
                    wait.restart(limit);
                }
                Some(ResponseKind::Pending) => wait.restart(limit + self.timing.p2_star),
                _ => {}
            }
        }
        Ok(transfer.blocks())
    }
}
