//! The initial contents of the database: the connectors of the file or of the documents, and an account for each
//! role.

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::database::{Change, Read};
use super::model::{Account, Connector, Employee, OneTimePassword, PreparedTicket, Role, Subject};
use super::record::StoreError;
use crate::cloud::catalogue::Catalogue;
use crate::cloud::random;

/// The first number for connectors without their own: that of the documented examples.
const FIRST_CONNECTOR: i64 = 910_101_043;
/// The counter of ticket numbers, and the first number.
pub(crate) const TICKET_COUNTER: &str = "ticket-number";
pub(crate) const FIRST_TICKET: i64 = 100_001;
/// The setting that is there once the catalogue's records are stored.
const SEEDED_SETTING: &str = "catalogue-seeded";
/// The setting that names the connector of a start without a connectors file.
const FIRST_SETTING: &str = "first-connector";

/// A connector in a connectors file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorSeed {
    /// The number; by default, the next free one.
    #[serde(default)]
    pub id: Option<i64>,
    /// The UUID.
    pub uuid: Uuid,
    /// The pincode, a string or a number.
    #[serde(deserialize_with = "pincode")]
    pub pincode: String,
    /// The hardware type.
    #[serde(default = "classic")]
    pub hardware_type: String,
    /// The product's name.
    #[serde(default = "sandbox_connector")]
    pub product_description: String,
    /// Whether it has Wi-Fi.
    #[serde(default = "yes")]
    pub has_wifi: bool,
    /// Whether the connector supports DoIP.
    #[serde(default = "yes")]
    pub supports_doip: bool,
    /// The software version.
    #[serde(default)]
    pub software_version: i64,
    /// The hardware version.
    #[serde(default)]
    pub hardware_version: i64,
    /// The vehicle as one line of text, if the cloud knows it.
    #[serde(default)]
    pub vehicle_path_string: Option<String>,
    /// A one-time password for the connector.
    #[serde(default)]
    pub otp: Option<String>,
}

fn classic() -> String {
    "classic".to_owned()
}

fn sandbox_connector() -> String {
    "Sandbox connector".to_owned()
}

fn yes() -> bool {
    true
}

fn pincode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pincode {
        Number(u64),
        Text(String),
    }
    Ok(match Pincode::deserialize(deserializer)? {
        Pincode::Number(number) => number.to_string(),
        Pincode::Text(text) => text,
    })
}

impl ConnectorSeed {
    /// A connector with this UUID and pincode, and defaults for the rest.
    pub fn new(uuid: Uuid, pincode: impl Into<String>) -> Self {
        Self {
            id: None,
            uuid,
            pincode: pincode.into(),
            hardware_type: classic(),
            product_description: sandbox_connector(),
            has_wifi: true,
            supports_doip: true,
            software_version: 0,
            hardware_version: 0,
            vehicle_path_string: None,
            otp: None,
        }
    }
}

/// The pincode that the documents print.
const DOCUMENTED_PINCODE: &str = "1234";

/// The connectors that the examples of the documents name. The logins of the examples are those of the first and the
/// second one.
fn documented_connectors() -> [ConnectorSeed; 4] {
    let seed = |id: i64, uuid: u128| ConnectorSeed {
        id: Some(id),
        ..ConnectorSeed::new(Uuid::from_u128(uuid), DOCUMENTED_PINCODE)
    };
    [
        ConnectorSeed {
            otp: Some("bafd50b7-7388-4eb1-8812-cbb5517faa2c".to_owned()),
            ..seed(FIRST_CONNECTOR, 0x6ec2_911c_a09a_11ee_8c90_0242_ac12_0002)
        },
        seed(940_201_044, 0x9389_ba6f_3696_4571_84d4_34d5_88c4_b109),
        seed(940_201_043, 0x9389_ba6f_3696_4571_84d4_34d5_88c4_b110),
        seed(910_329_423, 0x5f3d_760d_ade2_4a19_aea4_36e0_9767_8ae3),
    ]
}

impl Change {
    /// Stores the connectors. Returns the first of them.
    pub(crate) fn seed_connectors(&self, seeds: &[ConnectorSeed]) -> Result<Connector, StoreError> {
        let mut first = None;
        for seed in seeds {
            let connector = self.seed_connector(seed)?;
            first.get_or_insert(connector);
        }
        if let Some(first) = first {
            return Ok(first);
        }
        let known = self.setting(FIRST_SETTING)?.and_then(|bytes| Uuid::from_slice(&bytes).ok());
        if let Some(connector) = known.map(|uuid| self.by_uuid(uuid)).transpose()?.flatten() {
            return Ok(connector);
        }
        let [first, others @ ..] = documented_connectors();
        let first = self.seed_documented(&first)?;
        for seed in &others {
            self.seed_documented(seed)?;
        }
        self.set_setting(FIRST_SETTING, first.uuid.as_bytes())?;
        Ok(first)
    }

    /// Stores a connector of the documents, unless an earlier connectors file had it, perhaps with another pincode.
    fn seed_documented(&self, seed: &ConnectorSeed) -> Result<Connector, StoreError> {
        match self.by_uuid(seed.uuid)? {
            Some(known) => Ok(known),
            None => self.seed_connector(seed),
        }
    }

    fn seed_connector(&self, seed: &ConnectorSeed) -> Result<Connector, StoreError> {
        let known: Option<Connector> = self.by_uuid(seed.uuid)?;
        let id = match (&known, seed.id) {
            (Some(known), _) => known.id,
            (None, Some(id)) if id > 0 && self.connector(id)?.is_none() => id,
            (None, Some(id)) => {
                tracing::warn!(id, uuid = %seed.uuid, "the connector's number is taken or invalid: assigning another");
                self.free_connector_number()?
            }
            (None, None) => self.free_connector_number()?,
        };
        let connector = Connector {
            id,
            uuid: seed.uuid,
            pincode: seed.pincode.clone(),
            hardware_type: seed.hardware_type.clone(),
            product_description: seed.product_description.clone(),
            has_wifi: seed.has_wifi,
            supports_doip: seed.supports_doip,
            software_version: seed.software_version,
            hardware_version: seed.hardware_version,
            vehicle_path_string: seed.vehicle_path_string.clone(),
            vin_number: known.as_ref().and_then(|known| known.vin_number),
            agent_version: known.as_ref().and_then(|known| known.agent_version.clone()),
            call_for_attention: known.as_ref().is_some_and(|known| known.call_for_attention),
            dismissal_owed: known.as_ref().is_some_and(|known| known.dismissal_owed),
        };
        self.put(&connector)?;
        self.index(connector.uuid, connector.id)?;
        if let Some(otp) = &seed.otp {
            self.add_one_time_password(otp, Subject::connector(&connector))?;
        }
        Ok(connector)
    }

    fn free_connector_number(&self) -> Result<i64, StoreError> {
        loop {
            let number = self.next_number("connector-number", FIRST_CONNECTOR)?;
            if self.connector(number)?.is_none() {
                return Ok(number);
            }
        }
    }

    /// Stores a one-time password for `subject`. A password that was used stays used.
    pub(crate) fn add_one_time_password(&self, otp: &str, subject: Subject) -> Result<(), StoreError> {
        let hash = random::sha256(otp.as_bytes());
        match self.get::<OneTimePassword>(&hash)? {
            Some(_) => Ok(()),
            None => self.put(&OneTimePassword { hash, subject, used: false }),
        }
    }

    /// The account with this role, created if there is none.
    pub(crate) fn seed_account(&self, role: Role) -> Result<Account, StoreError> {
        if let Some(account) = self.all::<Account>()?.into_iter().find(|account| account.role == role) {
            return Ok(account);
        }
        let name = match role {
            Role::Operator => "operator",
            Role::Customer | Role::Connector => "customer",
        };
        let account = Account {
            client_id: format!("sandbox-{name}-{}", random::token(6)),
            client_secret: random::token(32),
            role,
            customer_id: match role {
                Role::Customer => Some(self.next_number("customer-number", 1)?),
                Role::Connector | Role::Operator => None,
            },
        };
        self.put(&account)?;
        Ok(account)
    }
}

impl Change {
    /// Stores what the catalogue says of the customer, unless an earlier start has done so: the employee who logs in, and
    /// the prepared tickets.
    pub(crate) fn seed_catalogue(&self, catalogue: &Catalogue) -> Result<(), StoreError> {
        if self.setting(SEEDED_SETTING)?.is_some() {
            return Ok(());
        }
        let customer = &catalogue.customer;
        self.put(&Employee {
            id: customer.id,
            given_name: customer.given_name.clone(),
            family_name: customer.family_name.clone(),
            username: Some(customer.email_address.clone()),
            enabled: true,
            correspondence_locale: catalogue.locales.first().cloned().unwrap_or_else(|| "en-GB".to_owned()),
        })?;
        for seed in &catalogue.prepared_tickets {
            self.put(&PreparedTicket {
                id: seed.id,
                ticket_number: self.next_number(TICKET_COUNTER, FIRST_TICKET)?,
                customer_id: customer.id,
                vin: seed.vin.clone(),
                product_ids: seed.product_ids.clone(),
                vehicle_model_id: seed.vehicle_model_id,
                vehicle_model_variant_id: seed.vehicle_model_variant_id,
                preparer_external_reference: seed.preparer_external_reference.clone(),
                voucher_code: None,
                is_picked_up: false,
                created_at: OffsetDateTime::now_utc(),
            })?;
        }
        self.set_setting(SEEDED_SETTING, b"1")
    }
}

impl Subject {
    /// The connector itself.
    pub(crate) fn connector(connector: &Connector) -> Self {
        Self { id: connector.uuid.to_string(), role: Role::Connector, connector_id: Some(connector.id) }
    }

    /// The account's owner.
    pub(crate) fn account(account: &Account) -> Self {
        Self { id: account.client_id.clone(), role: account.role, connector_id: None }
    }
}
