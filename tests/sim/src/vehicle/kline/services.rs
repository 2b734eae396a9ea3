//! The services of a KWP 2000 ECU (ISO 14230-3), as far as the tests need them.

use std::time::Duration;

use super::config::KlineEcuConfig;

const GENERAL_REJECT: u8 = 0x10;
const SERVICE_NOT_SUPPORTED: u8 = 0x11;
const SUB_FUNCTION_NOT_SUPPORTED: u8 = 0x12;
const REQUEST_SEQUENCE: u8 = 0x22;
const OUT_OF_RANGE: u8 = 0x31;
const RESPONSE_PENDING: u8 = 0x78;

/// An answer, and its delay after the one before, not counting P2.
pub(super) type DelayedAnswer = (Duration, Vec<u8>);

/// The ECU's memory and trouble codes.
#[derive(Debug, Default)]
pub(super) struct Services {
    downloading: bool,
    memory: Vec<u8>,
    codes_cleared: bool,
}

impl Services {
    pub(super) fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The answers to a request, in order; empty if the request wants none.
    pub(super) fn answer(&mut self, config: &KlineEcuConfig, request: &[u8]) -> Vec<DelayedAnswer> {
        let Some((&service, parameters)) = request.split_first() else { return Vec::new() };
        match (service, parameters) {
            // TesterPresent without an answer
            (0x3E, [0x02]) => Vec::new(),
            (0x3E, [] | [0x01]) => immediately(vec![0x7E]),
            (0x3E, _) => refuse(service, SUB_FUNCTION_NOT_SUPPORTED),
            (0x10, [session, ..]) => {
                self.downloading = false;
                immediately(vec![0x50, *session])
            }
            (0x1A, [identification]) => identify(config, *identification),
            (0x1A, _) => refuse(service, OUT_OF_RANGE),
            (0x21, [local]) => immediately([&[0x61, *local][..], &[*local; 8]].concat()),
            (0x18, [..]) if self.codes_cleared => immediately(vec![0x58, 0x00]),
            // P0100 and P0300, present
            (0x18, [..]) => immediately(vec![0x58, 0x02, 0x01, 0x00, 0xE1, 0x03, 0x00, 0x61]),
            (0x14, [..]) => {
                self.codes_cleared = true;
                immediately([&[0x54][..], parameters].concat())
            }
            (0x31, [routine, ..]) => self.erase(config, *routine),
            (0x34 | 0x36 | 0x37, _) => self.download(service, parameters),
            (0x09, [0x02]) => obd_vin(config),
            (0x01, [0x00]) => immediately(vec![0x41, 0x00, 0xBE, 0x1F, 0xB8, 0x10]),
            (0x10 | 0x21, _) => refuse(service, GENERAL_REJECT),
            _ => refuse(service, SERVICE_NOT_SUPPORTED),
        }
    }

    /// Erases the memory, with responses pending meanwhile.
    fn erase(&mut self, config: &KlineEcuConfig, routine: u8) -> Vec<DelayedAnswer> {
        let pending = |delay| (delay, vec![0x7F, 0x31, RESPONSE_PENDING]);
        let mut answers = vec![pending(Duration::ZERO)];
        let mut left = config.erase_time;
        while left > config.pending_interval {
            left -= config.pending_interval;
            answers.push(pending(config.pending_interval));
        }
        self.memory.clear();
        answers.push((left, vec![0x71, routine]));
        answers
    }

    /// RequestDownload, TransferData and RequestTransferExit.
    fn download(&mut self, service: u8, data: &[u8]) -> Vec<DelayedAnswer> {
        match service {
            0x34 => {
                self.downloading = true;
                immediately(vec![0x74, 0xFE])
            }
            0x36 if self.downloading => {
                self.memory.extend_from_slice(data);
                immediately(vec![0x76])
            }
            0x37 if std::mem::take(&mut self.downloading) => immediately(vec![0x77]),
            _ => refuse(service, REQUEST_SEQUENCE),
        }
    }
}

fn immediately(data: Vec<u8>) -> Vec<DelayedAnswer> {
    vec![(Duration::ZERO, data)]
}

fn refuse(service: u8, code: u8) -> Vec<DelayedAnswer> {
    immediately(vec![0x7F, service, code])
}

/// ReadEcuIdentification: the VIN, or the ECU's name.
fn identify(config: &KlineEcuConfig, identification: u8) -> Vec<DelayedAnswer> {
    match (identification, &config.vin) {
        (0x90, Some(vin)) => immediately([&[0x5A, 0x90], vin.as_bytes()].concat()),
        (0x9B, _) => immediately([&[0x5A, 0x9B][..], b"036906032  SIMULATED ECU 2010"].concat()),
        _ => refuse(0x1A, OUT_OF_RANGE),
    }
}

/// OBD: the VIN in five messages of four bytes (SAE J1979 on ISO 14230-4).
fn obd_vin(config: &KlineEcuConfig) -> Vec<DelayedAnswer> {
    let Some(vin) = &config.vin else { return Vec::new() };
    let padded = [&[0; 3], vin.as_bytes()].concat();
    let message =
        |(index, part): (usize, &[u8])| (Duration::ZERO, [&[0x49, 0x02, index as u8 + 1], part].concat());
    padded.chunks(4).enumerate().map(message).collect()
}
