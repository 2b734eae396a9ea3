//! `[policy]` of the configuration: conditions, rules, and the sources of facts.

use std::time::Duration;

use serde::Deserialize;

use super::class::{Class, Condition, Mode, Unknown};
use super::intent::{Intent, IntentTarget};

/// The most rules that a configuration may have: each costs time for every frame.
pub const MAX_RULES: usize = 64;

/// `[policy]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Whether refused intents are carried out.
    pub mode: Mode,
    /// The conditions of each class.
    pub require: ClassConditions,
    /// Where facts come from, and how they are judged.
    pub facts: FactSettings,
    /// How consent is given.
    pub consent: ConsentSettings,
    /// Rules, of which the first that matches decides instead of the class.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

impl PolicySettings {
    /// Returns the conditions of a class. Raw frames that are no diagnostics need consent where the device can ask for
    /// it.
    pub fn conditions(&self, class: Class, can_ask: bool) -> Vec<Condition> {
        let require = &self.require;
        let mut conditions = match class {
            Class::Read => require.read.clone(),
            Class::Session => require.session.clone(),
            Class::Intrusive => require.intrusive.clone(),
            Class::Programming => require.programming.clone(),
            Class::Scan => require.scan.clone(),
            Class::Bus => match &require.bus {
                Some(conditions) => conditions.clone(),
                None if can_ask => vec![Condition::NotMoving, Condition::Consent],
                None => vec![Condition::NotMoving],
            },
        };
        conditions.sort_unstable();
        conditions.dedup();
        conditions
    }
}

/// `[policy.require]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassConditions {
    /// The conditions of the class `read`.
    pub read: Vec<Condition>,
    /// The conditions of the class `session`.
    pub session: Vec<Condition>,
    /// The conditions of the class `intrusive`.
    pub intrusive: Vec<Condition>,
    /// The conditions of the class `programming`.
    pub programming: Vec<Condition>,
    /// The conditions of the class `bus`. By default a vehicle that does not move, and consent where the device can ask
    /// for it.
    pub bus: Option<Vec<Condition>>,
    /// The conditions of the class `scan`.
    pub scan: Vec<Condition>,
}

impl Default for ClassConditions {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            session: Vec::new(),
            intrusive: vec![Condition::NotMoving],
            programming: vec![Condition::NotMoving, Condition::Voltage],
            bus: None,
            scan: vec![Condition::NotMoving],
        }
    }
}

/// `[policy.facts]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FactSettings {
    /// The sources of the vehicle's speed.
    pub speed: Vec<SpeedFact>,
    /// How long a speed counts, in milliseconds.
    pub speed_stale_ms: u32,
    /// The vehicle moves above this speed, in km/h.
    pub moving_above_kmh: f32,
    /// What an unknown speed means for `not-moving`.
    pub unknown_speed: Unknown,
    /// The lowest voltage for the condition `voltage`.
    pub min_volts: f32,
    /// What an unknown voltage means for `voltage`.
    pub unknown_voltage: Unknown,
    /// CAN identifiers of diagnostics besides the standard ones.
    pub diagnostic_ids: Vec<u32>,
}

impl FactSettings {
    /// The sources of the speed that may be asked: OBD, and the data identifier by DoIP.
    pub(super) fn askable_speeds(&self) -> (bool, Option<u16>) {
        let obd = self.speed.contains(&SpeedFact::Obd { obd: true });
        let doip = self.speed.iter().find_map(|source| match source {
            SpeedFact::Doip { doip_did } => Some(*doip_did),
            _ => None,
        });
        (obd, doip)
    }
}

impl Default for FactSettings {
    fn default() -> Self {
        Self {
            speed: vec![SpeedFact::Obd { obd: true }, SpeedFact::Doip { doip_did: 0xF40D }],
            // twice the period of the question by OBD, and twenty times that of a frame of a brake controller
            speed_stale_ms: 2000,
            // wheel sensors report nothing reliable below
            moving_above_kmh: 3.0,
            unknown_speed: Unknown::Allow,
            min_volts: 12.0,
            unknown_voltage: Unknown::Allow,
            diagnostic_ids: Vec::new(),
        }
    }
}

/// A source of the vehicle's speed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "SpeedTable")]
pub enum SpeedFact {
    /// A signal in frames that are on a CAN bus anyway.
    Signal(SpeedSignal),
    /// OBD service 01, PID 0D, asked for when an intent needs the speed.
    Obd {
        /// Whether the source is used.
        obd: bool,
    },
    /// A data identifier that a DoIP entity is asked for when an intent needs the speed.
    Doip {
        /// The data identifier, whose data is the speed in km/h in one byte.
        doip_did: u16,
    },
}

/// A signal in frames of a CAN bus.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedSignal {
    /// The bus's name.
    pub bus: String,
    /// The frame's identifier; above 0x7FF an extended one.
    pub id: u32,
    /// The signal's first bit. With `big`, bits count from the most significant bit of byte 0, and the first bit is the
    /// most significant one. With `little`, they count from the least significant bit of byte 0, and the first bit is
    /// the least significant one.
    pub start: u16,
    /// The signal's width, 1 to 32 bits.
    pub bits: u8,
    /// km/h for a difference of 1.
    pub scale: f32,
    /// km/h for the raw value 0.
    pub offset: f32,
    /// The order of the bytes.
    pub order: ByteOrder,
}

/// An element of `policy.facts.speed` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeedTable {
    obd: Option<bool>,
    doip_did: Option<u16>,
    bus: Option<String>,
    id: Option<u32>,
    start: Option<u16>,
    bits: Option<u8>,
    scale: Option<f32>,
    #[serde(default)]
    offset: f32,
    #[serde(default)]
    order: ByteOrder,
}

impl TryFrom<SpeedTable> for SpeedFact {
    type Error = String;

    fn try_from(table: SpeedTable) -> Result<Self, String> {
        let SpeedTable { obd, doip_did, bus, id, start, bits, scale, offset, order } = table;
        match (obd, doip_did, bus) {
            (Some(obd), None, None) => Ok(Self::Obd { obd }),
            (None, Some(doip_did), None) => Ok(Self::Doip { doip_did }),
            (None, None, Some(bus)) => match (id, start, bits, scale) {
                (Some(id), Some(start), Some(bits), Some(scale)) => {
                    Ok(Self::Signal(SpeedSignal { bus, id, start, bits, scale, offset, order }))
                }
                _ => Err("a signal is incomplete; set bus, id, start, bits and scale".to_owned()),
            },
            _ => Err("not one source of the speed; set obd, doip_did, or bus and a signal".to_owned()),
        }
    }
}

/// The order of bytes in a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByteOrder {
    /// The most significant byte comes first (Motorola).
    #[default]
    Big,
    /// The least significant byte comes first (Intel).
    Little,
}

/// `[policy.consent]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsentSettings {
    /// Who may give consent.
    pub by: Vec<ConsentGiver>,
    /// The classes for which a ticket with confirmed unattended service gives consent.
    pub unattended: Vec<Class>,
    /// How long consent holds, in minutes.
    pub ttl_minutes: u32,
    /// How long the person at the vehicle is asked, in seconds.
    pub ask_seconds: u32,
}

impl Default for ConsentSettings {
    fn default() -> Self {
        Self {
            by: vec![ConsentGiver::Button, ConsentGiver::Ticket],
            unattended: vec![Class::Intrusive, Class::Programming],
            ttl_minutes: 60,
            ask_seconds: 120,
        }
    }
}

impl ConsentSettings {
    /// How long consent holds.
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(u64::from(self.ttl_minutes) * 60)
    }

    /// How long the person at the vehicle is asked.
    pub fn ask(&self) -> Duration {
        Duration::from_secs(self.ask_seconds.into())
    }
}

/// Who gives consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentGiver {
    /// The person at the vehicle, by the device's button.
    Button,
    /// A ticket with confirmed unattended service.
    Ticket,
}

/// `[[policy.rule]]`: an intent matches if it matches every selector that the rule has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The bus's name.
    pub bus: Option<String>,
    /// CAN identifiers that the connector sends.
    pub ids: Vec<u32>,
    /// Addresses of ECUs on a K-line, of TP2.0, or of DoIP.
    pub targets: Vec<u16>,
    /// Services.
    pub services: Vec<u8>,
    /// Sub-functions, without bit 7.
    pub subfunctions: Vec<u8>,
    /// Data identifiers of the services 22, 24, 2A, 2C, 2E and 2F.
    pub dids: Vec<u16>,
    /// Routine identifiers of the service 31.
    pub routines: Vec<u16>,
    /// The first bytes of the request.
    pub data_prefix: Option<HexBytes>,
    /// The conditions; none: always allowed.
    pub require: Vec<Condition>,
}

impl Rule {
    /// Whether the rule selects by bus and ECU only.
    pub fn is_about_channels(&self) -> bool {
        self.services.is_empty()
            && self.subfunctions.is_empty()
            && self.dids.is_empty()
            && self.routines.is_empty()
            && self.data_prefix.is_none()
    }

    pub(super) fn matches_channel(&self, intent: &Intent<'_>) -> bool {
        self.bus.as_deref().is_none_or(|bus| bus == intent.bus.name)
            && (self.ids.is_empty() && self.targets.is_empty() || self.matches_target(intent.target))
    }

    fn matches_target(&self, target: IntentTarget) -> bool {
        match target {
            IntentTarget::None => false,
            IntentTarget::Can { id, .. } => self.ids.contains(&id.raw()),
            IntentTarget::Address(address) => self.targets.contains(&address.into()),
            IntentTarget::Logical(address) => self.targets.contains(&address),
        }
    }

    /// Whether the selectors of the request match these first bytes of one. `if_missing` is the answer where the bytes do
    /// not suffice.
    pub(super) fn matches_request(&self, request: &[u8], if_missing: bool) -> bool {
        let identifier = |at: usize, wanted: &[u16]| match request.get(at..at + 2) {
            Some(&[high, low]) => wanted.contains(&u16::from_be_bytes([high, low])),
            _ => if_missing,
        };
        let service = request.first();
        (self.services.is_empty() || service.map_or(if_missing, |id| self.services.contains(id)))
            && (self.subfunctions.is_empty()
                || request.get(1).map_or(if_missing, |byte| self.subfunctions.contains(&(byte & 0x7F))))
            && (self.dids.is_empty()
                || matches!(service, Some(0x22 | 0x24 | 0x2A | 0x2C | 0x2E | 0x2F))
                    && identifier(1, &self.dids))
            && (self.routines.is_empty() || service == Some(&0x31) && identifier(2, &self.routines))
            && self.data_prefix.as_ref().is_none_or(|prefix| {
                request.starts_with(&prefix.0) || if_missing && prefix.0.starts_with(request)
            })
    }
}

/// Bytes, written as hexadecimal digits in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HexBytes(pub Vec<u8>);

impl TryFrom<String> for HexBytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for HexBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{text:?} contains something else than hexadecimal digits"))?;
        if digits.is_empty() || !digits.len().is_multiple_of(2) {
            return Err(format!("{text:?} is not a number of bytes: two hexadecimal digits each"));
        }
        let bytes = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit));
        Ok(Self(bytes.collect()))
    }
}
