//! The services of an ECU.

use std::time::Instant;

use super::{Ecu, Nrc, Outcome, Session, dtc};

/// The bit of a sub-function that suppresses the positive response.
const SUPPRESS: u8 = 0x80;
/// The services whose first byte is a sub-function with the suppress bit.
const WITH_SUB_FUNCTION: [u8; 8] = [0x10, 0x11, 0x19, 0x27, 0x28, 0x31, 0x3E, 0x85];
/// The longest value that WriteDataByIdentifier stores.
const MAX_WRITTEN: usize = 64;
/// activeDiagnosticSessionDataIdentifier
const DID_ACTIVE_SESSION: u16 = 0xF186;
/// The vehicle's speed (SAE J1979-2), in km/h.
const DID_SPEED: u16 = 0xF40D;
/// The engine's speed (SAE J1979-2), in quarters of a revolution a minute.
const DID_ENGINE_SPEED: u16 = 0xF40C;
/// The tester's fingerprint, which some manufacturers require before a download.
const DID_FINGERPRINT: u16 = 0xF15A;
/// The last downloaded image: address (5 bytes), length (4 bytes), CRC-32.
pub(super) const DID_IMAGE: u16 = 0xF1A0;
/// The SHA-256 of the last downloaded image.
pub(super) const DID_IMAGE_HASH: u16 = 0xF1A1;

impl Ecu {
    /// Executes a request.
    pub(super) fn execute(&mut self, now: Instant, pdu: &[u8]) -> Outcome {
        let known = self.config.exchanges.iter().find(|exchange| exchange.request == pdu);
        let recorded = known.map(|exchange| exchange.response.clone());
        let mut outcome = self.execute_generic(now, pdu);
        if let Some(response) = recorded {
            // the recorded answer takes precedence, even where the standard requires more
            outcome.response = Ok(response);
            outcome.suppress = false;
        }
        outcome
    }

    fn execute_generic(&mut self, now: Instant, pdu: &[u8]) -> Outcome {
        let timing = self.config.timing;
        let Some((service, data)) = pdu.split_first() else {
            let response = Err(Nrc::IncorrectMessageLength);
            return Outcome { response, suppress: false, takes: timing.processing, reset: false };
        };
        let has_sub_function = WITH_SUB_FUNCTION.contains(service);
        let response = match (has_sub_function, data) {
            (true, []) => Err(Nrc::IncorrectMessageLength),
            (true, [first, rest @ ..]) => self.with_sub_function(now, *service, first & !SUPPRESS, rest),
            (false, _) => self.without_sub_function(*service, data),
        };
        let done = response.is_ok();
        let takes = match (service, data) {
            (0x31, [_, 0xFF, 0x00, ..]) if done => timing.erase,
            (0x31, [_, 0x02, 0x02, ..]) if done => timing.check,
            (0x36, _) if done => timing.write,
            _ => timing.processing,
        };
        Outcome {
            response,
            suppress: has_sub_function && data.first().is_some_and(|first| first & SUPPRESS != 0),
            takes,
            reset: *service == 0x11 && done,
        }
    }

    fn with_sub_function(
        &mut self,
        now: Instant,
        service: u8,
        sub_function: u8,
        rest: &[u8],
    ) -> Result<Vec<u8>, Nrc> {
        match service {
            0x10 => self.session_control(sub_function, rest),
            0x11 => match (sub_function, rest) {
                (1..=3, []) => Ok(vec![0x51, sub_function]),
                (1..=3, _) => Err(Nrc::IncorrectMessageLength),
                _ => Err(Nrc::SubFunctionNotSupported),
            },
            0x19 => dtc::read(&self.supported_dtcs, &self.dtcs, sub_function, rest),
            0x27 => {
                self.outside_default()?;
                self.security.access(now, sub_function, rest)
            }
            0x28 => self.communication_control(sub_function, rest),
            0x31 => self.routine_control(sub_function, rest),
            0x3E => {
                self.status.tester_presents += 1;
                match (sub_function, rest) {
                    (0, []) => Ok(vec![0x7E, 0]),
                    (0, _) => Err(Nrc::IncorrectMessageLength),
                    _ => Err(Nrc::SubFunctionNotSupported),
                }
            }
            0x85 => self.control_dtc_setting(sub_function),
            _ => Err(Nrc::ServiceNotSupported),
        }
    }

    fn without_sub_function(&mut self, service: u8, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        match service {
            0x14 => dtc::clear(&mut self.dtcs, data),
            0x22 => self.read_data(data),
            0x23 => {
                self.outside_default()?;
                self.unlocked()?;
                self.flash.read(data)
            }
            0x2E => {
                self.outside_default()?;
                self.write_data(data)
            }
            0x34 => {
                self.programming()?;
                self.flash.request_download(data)
            }
            0x36 => {
                self.programming()?;
                self.flash.transfer_data(data, &mut self.status.anomalies)
            }
            0x37 => {
                self.programming()?;
                self.flash.exit(data)
            }
            _ => self.other_service(service, data),
        }
    }

    fn outside_default(&self) -> Result<(), Nrc> {
        match self.session {
            Session::Default => Err(Nrc::ServiceNotSupportedInActiveSession),
            Session::Programming | Session::Extended => Ok(()),
        }
    }

    fn unlocked(&self) -> Result<(), Nrc> {
        self.security.unlocked().map(|_| ()).ok_or(Nrc::SecurityAccessDenied)
    }

    fn programming(&self) -> Result<(), Nrc> {
        match self.session {
            Session::Programming => self.unlocked(),
            Session::Default | Session::Extended => Err(Nrc::ServiceNotSupportedInActiveSession),
        }
    }

    fn session_control(&mut self, session: u8, rest: &[u8]) -> Result<Vec<u8>, Nrc> {
        let session = match session {
            1 => Session::Default,
            2 => Session::Programming,
            3 => Session::Extended,
            _ => return Err(Nrc::SubFunctionNotSupported),
        };
        if !rest.is_empty() {
            return Err(Nrc::IncorrectMessageLength);
        }
        self.enter(session);
        // P2 in ms, P2* in tens of ms
        let p2 = u16::try_from(self.config.timing.p2.as_millis()).unwrap_or(u16::MAX);
        let p2_star = u16::try_from(self.config.timing.p2_star.as_millis() / 10).unwrap_or(u16::MAX);
        let mut response = vec![0x50, session.code()];
        response.extend(p2.to_be_bytes());
        response.extend(p2_star.to_be_bytes());
        Ok(response)
    }

    fn communication_control(&mut self, control: u8, rest: &[u8]) -> Result<Vec<u8>, Nrc> {
        self.outside_default()?;
        match (control, rest) {
            (0..=3, [_]) => {
                self.communication = control;
                Ok(vec![0x68, control])
            }
            (0..=3, _) => Err(Nrc::IncorrectMessageLength),
            _ => Err(Nrc::SubFunctionNotSupported),
        }
    }

    fn control_dtc_setting(&mut self, setting: u8) -> Result<Vec<u8>, Nrc> {
        self.outside_default()?;
        match setting {
            1 | 2 => {
                self.dtc_setting = setting == 1;
                Ok(vec![0xC5, setting])
            }
            _ => Err(Nrc::SubFunctionNotSupported),
        }
    }

    fn routine_control(&mut self, control: u8, rest: &[u8]) -> Result<Vec<u8>, Nrc> {
        if control != 1 {
            return Err(Nrc::SubFunctionNotSupported);
        }
        let [high, low, option @ ..] = rest else { return Err(Nrc::IncorrectMessageLength) };
        let status = match (high, low) {
            (0xFF, 0x00) => {
                self.programming()?;
                self.flash.erase();
                0
            }
            // checkProgrammingDependencies: a single image depends on nothing
            (0xFF, 0x01) => {
                self.programming()?;
                0
            }
            (0x02, 0x02) => {
                self.programming()?;
                self.flash.check(option)?
            }
            _ => return Err(Nrc::RequestOutOfRange),
        };
        Ok(vec![0x71, control, *high, *low, status])
    }

    fn read_data(&self, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        if data.is_empty() || !data.len().is_multiple_of(2) {
            return Err(Nrc::IncorrectMessageLength);
        }
        // more than fit a single frame; the limit of the request limits the response
        const MAX_IDENTIFIERS: usize = 16;
        if data.len() / 2 > MAX_IDENTIFIERS {
            return Err(Nrc::IncorrectMessageLength);
        }
        let mut response = vec![0x62];
        for pair in data.chunks_exact(2) {
            let identifier = pair.iter().fold(0_u16, |number, byte| number << 8 | u16::from(*byte));
            // an unknown identifier is left out if another one is known (ISO 14229-1, 10.2.5)
            if let Some(value) = self.data_identifier(identifier, pair) {
                response.extend_from_slice(pair);
                response.extend(value);
            }
        }
        if response.len() == 1 { Err(Nrc::RequestOutOfRange) } else { Ok(response) }
    }

    fn data_identifier(&self, identifier: u16, pair: &[u8]) -> Option<Vec<u8>> {
        let request = [&[0x22], pair].concat();
        let header = [&[0x62], pair].concat();
        let known = self.config.exchanges.iter().find(|exchange| exchange.request == request);
        if let Some(value) = known.and_then(|exchange| exchange.response.strip_prefix(header.as_slice())) {
            return Some(value.to_vec());
        }
        let image = self.flash.images().last();
        match identifier {
            DID_ACTIVE_SESSION => Some(vec![self.session.code()]),
            DID_SPEED => self.config.drive.obd_speed().map(|kmh| vec![kmh]),
            DID_ENGINE_SPEED => Some(self.config.drive.obd_engine_speed().to_vec()),
            DID_IMAGE => {
                let image = image?;
                let mut value: Vec<u8> = image.address.to_be_bytes().into_iter().skip(3).collect();
                value.extend(u32::try_from(image.data.len()).unwrap_or(u32::MAX).to_be_bytes());
                value.extend(image.crc32.to_be_bytes());
                Some(value)
            }
            DID_IMAGE_HASH => {
                Some(ring::digest::digest(&ring::digest::SHA256, &image?.data).as_ref().to_vec())
            }
            _ => self.written.get(&identifier).cloned(),
        }
    }

    fn write_data(&mut self, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        let [high, low, value @ ..] = data else { return Err(Nrc::IncorrectMessageLength) };
        let identifier = u16::from_be_bytes([*high, *low]);
        if identifier != DID_FINGERPRINT {
            return Err(Nrc::RequestOutOfRange);
        }
        if value.is_empty() || value.len() > MAX_WRITTEN {
            return Err(Nrc::IncorrectMessageLength);
        }
        self.unlocked()?;
        self.written.insert(identifier, value.to_vec());
        Ok(vec![0x6E, *high, *low])
    }

    /// Services that only some ECUs have, as their recorded answers show.
    fn other_service(&self, service: u8, data: &[u8]) -> Result<Vec<u8>, Nrc> {
        let mut same = self.config.exchanges.iter().filter(|known| known.request.first() == Some(&service));
        match (service, data) {
            // speeds (SAE J1979, mode 01)
            (0x01, [pid @ 0x0D]) => {
                let kmh = self.config.drive.obd_speed().ok_or(Nrc::RequestOutOfRange)?;
                Ok(vec![0x41, *pid, kmh])
            }
            (0x01, [pid @ 0x0C]) => {
                let [high, low] = self.config.drive.obd_engine_speed();
                Ok(vec![0x41, *pid, high, low])
            }
            // OBD-II mode 09: the supported information types 01…20 (ISO 15031-5, 7.9)
            (0x09, [0x00]) => {
                let supported = same
                    .filter_map(|known| match *known.request.as_slice() {
                        [_, pid @ 0x01..=0x20] => Some(1_u32 << (0x20 - pid)),
                        _ => None,
                    })
                    .fold(0_u32, |all, bit| all | bit);
                if supported == 0 {
                    return Err(Nrc::ServiceNotSupported);
                }
                let mut response = vec![0x49, 0x00];
                response.extend(supported.to_be_bytes());
                Ok(response)
            }
            (0x09, _) if same.next().is_some() => Err(Nrc::SubFunctionNotSupported),
            _ if same.next().is_some() => Err(Nrc::RequestOutOfRange),
            _ => Err(Nrc::ServiceNotSupported),
        }
    }
}
