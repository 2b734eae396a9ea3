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
pub(super) type Answer = (Duration, Vec<u8>);

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
    pub(super) fn answer(&mut self, config: &KlineEcuConfig, request: &[u8]) -> Vec<Answer> {
        let at_once = |data: Vec<u8>| vec![(Duration::ZERO, data)];
        let Some((&service, parameters)) = request.split_first() else { return Vec::new() };
        let refuse = |code: u8| at_once(vec![0x7F, service, code]);
        match (service, parameters) {
            // TesterPresent without an answer
            (0x3E, [0x02]) => Vec::new(),
            (0x3E, [] | [0x01]) => at_once(vec![0x7E]),
            (0x3E, _) => refuse(SUB_FUNCTION_NOT_SUPPORTED),
            (0x10, [session, ..]) => {
                self.downloading = false;
                at_once(vec![0x50, *session])
            }
            (0x1A, [0x90]) => match &config.vin {
                Some(vin) => at_once([&[0x5A, 0x90], vin.as_bytes()].concat()),
                None => refuse(OUT_OF_RANGE),
            },
            (0x1A, [0x9B]) => at_once([&[0x5A, 0x9B][..], b"036906032  SIMULATED ECU 2010"].concat()),
            (0x1A, _) => refuse(OUT_OF_RANGE),
            (0x21, [local]) => at_once([&[0x61, *local][..], &[*local; 8]].concat()),
            (0x18, [..]) if self.codes_cleared => at_once(vec![0x58, 0x00]),
            // P0100 and P0300, present
            (0x18, [..]) => at_once(vec![0x58, 0x02, 0x01, 0x00, 0xE1, 0x03, 0x00, 0x61]),
            (0x14, [..]) => {
                self.codes_cleared = true;
                at_once([&[0x54][..], parameters].concat())
            }
            // erasing
            (0x31, [routine, ..]) => {
                let mut answers = Vec::new();
                let mut left = config.erase_time;
                answers.push((Duration::ZERO, vec![0x7F, 0x31, RESPONSE_PENDING]));
                while left > config.pending_interval {
                    left -= config.pending_interval;
                    answers.push((config.pending_interval, vec![0x7F, 0x31, RESPONSE_PENDING]));
                }
                self.memory.clear();
                answers.push((left, vec![0x71, *routine]));
                answers
            }
            (0x34, [..]) => {
                self.downloading = true;
                at_once(vec![0x74, 0xFE])
            }
            (0x36, data) if self.downloading => {
                self.memory.extend_from_slice(data);
                at_once(vec![0x76])
            }
            (0x36, _) => refuse(REQUEST_SEQUENCE),
            (0x37, _) if std::mem::take(&mut self.downloading) => at_once(vec![0x77]),
            (0x37, _) => refuse(REQUEST_SEQUENCE),
            // OBD: the VIN in five messages of four bytes (SAE J1979 on ISO 14230-4)
            (0x09, [0x02]) => match &config.vin {
                Some(vin) => {
                    let padded = [&[0; 3], vin.as_bytes()].concat();
                    let message = |(index, part): (usize, &[u8])| {
                        (Duration::ZERO, [&[0x49, 0x02, index as u8 + 1], part].concat())
                    };
                    padded.chunks(4).enumerate().map(message).collect()
                }
                None => Vec::new(),
            },
            (0x01, [0x00]) => at_once(vec![0x41, 0x00, 0xBE, 0x1F, 0xB8, 0x10]),
            (0x10 | 0x21, _) => refuse(GENERAL_REJECT),
            _ => refuse(SERVICE_NOT_SUPPORTED),
        }
    }
}
