//! The connector's identity: its UUID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The connector's UUID, assigned by the vendor; never the nil UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConnectorUuid(Uuid);

/// The text is not a connector's UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a connector's UUID; copy it from the device, like 5f3d760d-ade2-4a19-aea4-36e097678ae3")]
pub struct ConnectorUuidError;

impl ConnectorUuid {
    /// A connector's UUID; an error for the nil UUID.
    pub fn new(uuid: Uuid) -> Result<Self, ConnectorUuidError> {
        if uuid.is_nil() { Err(ConnectorUuidError) } else { Ok(Self(uuid)) }
    }

    /// The UUID.
    pub fn get(&self) -> Uuid {
        self.0
    }
}

impl FromStr for ConnectorUuid {
    type Err = ConnectorUuidError;

    fn from_str(text: &str) -> Result<Self, ConnectorUuidError> {
        Uuid::try_parse(text).map_err(|_| ConnectorUuidError).and_then(Self::new)
    }
}

impl TryFrom<String> for ConnectorUuid {
    type Error = ConnectorUuidError;

    fn try_from(text: String) -> Result<Self, ConnectorUuidError> {
        text.parse()
    }
}

impl From<ConnectorUuid> for String {
    fn from(uuid: ConnectorUuid) -> Self {
        uuid.to_string()
    }
}

impl fmt::Display for ConnectorUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nil_uuid_is_refused() {
        assert_eq!("00000000-0000-0000-0000-000000000000".parse::<ConnectorUuid>(), Err(ConnectorUuidError));
    }

    #[test]
    fn a_uuid_prints_hyphenated_and_in_lower_case() {
        let uuid: ConnectorUuid = "5F3D760DADE24A19AEA436E097678AE3".parse().unwrap();
        assert_eq!(uuid.to_string(), "5f3d760d-ade2-4a19-aea4-36e097678ae3");
    }
}
