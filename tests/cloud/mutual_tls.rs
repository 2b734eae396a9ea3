//! A cloud that asks for the connector's certificate, and pinned keys of the cloud.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connector_agent::cloud::dial::Dialer;
use connector_agent::cloud::login::Authenticator;
use connector_agent::cloud::rest::{ErrorChain, Rest};
use connector_agent::cloud::websocket::{CloudSocket, SocketEvent, SocketSettings};
use connector_agent::config::{ApiUrl, Config, ConnectorUuid, Pincode, WebsocketUrl};
use connector_agent::tls::KeyPin;
use connector_sim::cloud as sandbox;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::scripted::*;

/// A sandbox cloud that requires client certificates, and the files of a connector.
struct Rig {
    cloud: sandbox::Cloud,
    config: Config,
    directory: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let client_ca = directory.path().join("clients.pem");
        issue(directory.path(), &client_ca);
        let state = directory.path().join("state");
        let settings =
            sandbox::CloudConfig { client_ca: Some(client_ca), ..sandbox::CloudConfig::local(state) };
        let cloud = sandbox::Cloud::start(settings).await.unwrap();
        let mut config = Config::new(
            ConnectorUuid::new(cloud.connector_uuid).unwrap(),
            ApiUrl::try_from(cloud.api_url.clone()).unwrap(),
            WebsocketUrl::try_from(cloud.websocket_url.clone()).unwrap(),
        );
        config.cloud.ca_file = Some(cloud.ca_file.clone());
        Self { cloud, config, directory }
    }

    fn with_certificate(&mut self) {
        self.config.cloud.client_certificate_file = Some(self.directory.path().join("connector.pem"));
        self.config.cloud.client_key_file = Some(self.directory.path().join("connector.key"));
    }

    fn dialer(&self) -> Dialer {
        Dialer::new(self.config.cloud_tls(Duration::ZERO).unwrap())
    }

    fn rest(&self) -> Arc<Rest> {
        Arc::new(Rest::new(&self.config.cloud, self.config.connector.uuid, self.dialer()).unwrap())
    }

    fn pincode(&self) -> Pincode {
        Pincode::new(&self.cloud.connector_pincode).unwrap()
    }

    async fn login_error(&self) -> String {
        ErrorChain(&soon(self.rest().log_in(&self.pincode())).await.unwrap_err()).to_string()
    }
}

/// Writes the CA of connectors, and the certificate and key of one.
fn issue(directory: &Path, client_ca: &Path) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(client_ca, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let mut leaf = CertificateParams::new(vec!["connector".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    fs::write(directory.join("connector.pem"), certificate.pem()).unwrap();
    let key_file = directory.join("connector.key");
    fs::write(&key_file, key.serialize_pem()).unwrap();
    fs::set_permissions(key_file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_cloud_that_requires_a_certificate_gets_it_by_rest_and_websocket() {
    let mut rig = Rig::start().await;
    let error = rig.login_error().await;
    assert!(error.contains("CertificateRequired"), "{error}");
    rig.with_certificate();
    let authenticator = Authenticator::spawn(rig.rest(), rig.pincode(), 1);
    soon(authenticator.token()).await;
    let settings = SocketSettings::new(&rig.config.cloud, 4095);
    let mut link = CloudSocket::new(settings, rig.dialer(), authenticator, 1);
    assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Up));
}

#[tokio::test]
async fn a_cloud_whose_keys_are_not_pinned_receives_no_request() {
    let mut rig = Rig::start().await;
    rig.with_certificate();
    let other = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    rig.config.cloud.public_key_pins = vec![KeyPin::try_from(other.to_owned()).unwrap()];
    let error = rig.login_error().await;
    let (_, seen) =
        error.split_once("no key of its chain is pinned in cloud.public_key_pins; the keys are ").unwrap();
    assert_eq!(rig.cloud.pincode_logins(), 0);
    // the error names the key that can be pinned
    let seen = KeyPin::try_from(seen.split([',', ' ', ')', '"']).next().unwrap().to_owned()).unwrap();
    rig.config.cloud.public_key_pins.push(seen);
    soon(rig.rest().log_in(&rig.pincode())).await.unwrap();
}
