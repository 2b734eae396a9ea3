//! The agent's configuration file.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// The parts of a configuration that the demo and the trials set.
pub(crate) struct AgentConfig<'a> {
    /// The connector's UUID.
    pub(crate) uuid: uuid::Uuid,
    /// The file with the pincode.
    pub(crate) pincode_file: &'a Path,
    /// The directory for the stored login; without it, no login is stored.
    pub(crate) state_directory: Option<&'a Path>,
    /// The URL of the REST API.
    pub(crate) api_url: &'a str,
    /// The URL of the websocket.
    pub(crate) websocket_url: &'a str,
    /// The certificate authority to trust, as PEM.
    pub(crate) ca_file: &'a Path,
    /// Further lines of the section `[cloud]`.
    pub(crate) cloud_settings: &'a str,
    /// The sections for buses and board.
    pub(crate) hardware: &'a str,
}

impl AgentConfig<'_> {
    /// The text of the file.
    pub(crate) fn to_toml(&self) -> String {
        let path = |path: &Path| toml_string(&path.to_string_lossy());
        let state = self
            .state_directory
            .map(|directory| format!("state_directory = {}\n", path(directory)))
            .unwrap_or_default();
        format!(
            "[connector]\nuuid = \"{uuid}\"\npincode_file = {pincode}\n{state}\n\
             [cloud]\napi_url = {api}\nwebsocket_url = {websocket}\nca_file = {ca}\n{settings}\n\
             {hardware}\n",
            uuid = self.uuid,
            pincode = path(self.pincode_file),
            api = toml_string(self.api_url),
            websocket = toml_string(self.websocket_url),
            ca = path(self.ca_file),
            settings = self.cloud_settings,
            hardware = self.hardware,
        )
    }
}

/// `text` as a TOML basic string, which has the syntax of a JSON string.
pub(crate) fn toml_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
