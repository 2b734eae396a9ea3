//! The sources of the pincode: the environment, systemd's credentials, a file, the configuration.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::zeroize::Zeroizing;

use super::pincode::{
    ChangeTime, MAX_LENGTH, PACKAGED_PINCODE, PINCODE_CREDENTIAL, PINCODE_VARIABLE, Pincode, PincodeError,
};
use super::secret_file::{self, OTHER_USERS, OTHER_USERS_BESIDE_ACL, SecretFileError};
use super::sections::ConnectorConfig;

impl Pincode {
    /// The pincode from the first source that has one: the environment, systemd's credentials, the file, the
    /// configuration. `variable` looks up the environment.
    pub(super) fn find(
        connector: &ConnectorConfig,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, PincodeError> {
        if let Some(value) = variable(PINCODE_VARIABLE) {
            let value = Zeroizing::new(value.into_string().unwrap_or_default());
            return Self::new(&value)
                .ok_or_else(|| PincodeError::Malformed(format!("the variable {PINCODE_VARIABLE}")));
        }
        if let Some(directory) = variable("CREDENTIALS_DIRECTORY") {
            let path = Path::new(&directory).join(PINCODE_CREDENTIAL);
            match Self::from_file(&path, OTHER_USERS_BESIDE_ACL) {
                Err(PincodeError::File(SecretFileError::Read { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        match (&connector.pincode_file, &connector.pincode) {
            (Some(path), _) => Self::from_file(path, OTHER_USERS),
            (None, Some(pincode)) => Ok(pincode.clone()),
            (None, None) => Err(PincodeError::Missing),
        }
    }

    /// When the source that [`Pincode::find`] uses was last changed, by the modification time of its file.
    /// `None` if that cannot be seen: the environment has no such time, and systemd makes its credentials again
    /// for each start.
    pub(super) fn source_changed_at(
        connector: &ConnectorConfig,
        configuration: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Option<ChangeTime> {
        if variable(PINCODE_VARIABLE).is_some() {
            return None;
        }
        let credential = variable("CREDENTIALS_DIRECTORY")
            .map(|directory| Path::new(&directory).join(PINCODE_CREDENTIAL))
            .filter(|path| path.exists());
        let path = match (credential, &connector.pincode_file) {
            // the file from which the package's unit makes the credential
            (Some(_), _) => Path::new(PACKAGED_PINCODE),
            (None, Some(path)) => path,
            (None, None) => configuration?,
        };
        let metadata = std::fs::metadata(path).ok()?;
        Some(ChangeTime { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() })
    }

    /// Reads the pincode from this file; an error if the file has any of the permission bits `forbidden`.
    fn from_file(path: &Path, forbidden: u32) -> Result<Self, PincodeError> {
        let bytes = secret_file::read(path, "pincode file", forbidden, 2 * MAX_LENGTH)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        Self::new(text).ok_or_else(|| PincodeError::Malformed(path.display().to_string()))
    }
}
