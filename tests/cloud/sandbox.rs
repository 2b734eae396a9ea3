//! Login, resources and link with the sandbox cloud, over TLS.

use std::sync::Arc;
use std::time::Duration;

use crate::scripted::soon;
use connector_agent::cloud::dial::Dialer;
use connector_agent::cloud::login::Authenticator;
use connector_agent::cloud::rest::{Rest, differences};
use connector_agent::cloud::websocket::{CloudSocket, OutgoingMessage, SocketEvent, SocketSettings};
use connector_agent::cloud::{Cloud, CloudState, LoginState};
use connector_agent::config::{ApiUrl, Config, ConnectorUuid, Pincode, WebsocketUrl};
use connector_agent::tls;
use connector_sim::cloud as sandbox;
use serde_json::json;

#[tokio::test]
async fn the_connector_logs_in_finds_its_record_and_comes_online() {
    let rig = Rig::start(Duration::from_secs(3600)).await;
    let authenticator = rig.authenticator(&rig.cloud.connector_pincode);
    let mut status = authenticator.status();
    let cloud = Cloud::new(rig.rest(), authenticator.clone(), 1);
    let record = soon(cloud.connector()).await.unwrap();
    assert_eq!(record.uuid, Some(rig.config.connector.uuid.get()));
    assert_eq!(record.is_online, Some(false));
    assert_eq!(differences(&rig.config, &record), Vec::<String>::new());
    assert_eq!(soon(cloud.active_ticket()).await.unwrap(), None);

    let mut link = rig.link(authenticator);
    assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Up));
    assert_eq!(status.borrow_and_update().state(), CloudState::Online);
    link.send(OutgoingMessage::Text(hello(&rig.config))).unwrap();
    let is_online = async {
        while soon(cloud.connector()).await.unwrap().is_online != Some(true) {
            tokio::task::yield_now().await;
        }
        soon(cloud.dismiss_call_for_attention()).await.unwrap();
    };
    let event = async {
        loop {
            if let SocketEvent::Text(text) = soon(link.next_event(false)).await {
                break text;
            }
        }
    };
    let ((), text) = tokio::join!(is_online, event);
    assert!(text.contains("dismissCallForAttention"), "{text}");
    soon(link.close(Duration::from_secs(5))).await;
    assert_eq!(status.borrow_and_update().state(), CloudState::Connecting);
}

#[tokio::test]
async fn a_wrong_pincode_is_rejected() {
    let rig = Rig::start(Duration::from_secs(3600)).await;
    let authenticator = rig.authenticator("not-the-pincode");
    let mut status = authenticator.status();
    soon(status.wait_for(|status| status.login == LoginState::Rejected)).await.unwrap();
    assert_eq!(status.borrow().state(), CloudState::LoginRejected);
}

#[tokio::test]
async fn a_refresh_token_gives_new_tokens_once() {
    let rig = Rig::start(Duration::from_secs(60)).await;
    let rest = rig.rest();
    let pincode = Pincode::new(&rig.cloud.connector_pincode).unwrap();
    let first = soon(rest.log_in(&pincode)).await.unwrap();
    assert_eq!(first.lifetime, Duration::from_secs(60));
    let refresh = first.refresh.unwrap();
    let second = soon(rest.refresh(&refresh)).await.unwrap();
    assert!(second.refresh.is_some());
    let error = soon(rest.refresh(&refresh)).await.unwrap_err();
    assert!(!error.is_transient(), "{error}: the login must fall back to the pincode");
}

#[tokio::test]
async fn a_token_that_expired_unnoticed_is_replaced() {
    let rig = Rig::start(Duration::from_secs(1)).await;
    let authenticator = rig.authenticator(&rig.cloud.connector_pincode);
    let first = format!("{:?}", soon(authenticator.token()).await);
    let cloud = Cloud::new(rig.rest(), authenticator.clone(), 1);
    // until the sandbox, by its own clock, no longer accepts the token
    soon(async {
        while format!("{:?}", authenticator.token().await) == first {
            cloud.connector().await.unwrap();
        }
    })
    .await;
    soon(cloud.connector()).await.unwrap();
}

struct Rig {
    cloud: sandbox::Cloud,
    config: Config,
    _state: tempfile::TempDir,
}

impl Rig {
    async fn start(token_lifetime: Duration) -> Self {
        let state = tempfile::tempdir().unwrap();
        let settings = sandbox::CloudConfig { token_lifetime, ..sandbox::CloudConfig::local(state.path()) };
        let cloud = sandbox::Cloud::start(settings).await.unwrap();
        let mut config = Config::new(
            ConnectorUuid::new(cloud.connector_uuid).unwrap(),
            ApiUrl::try_from(cloud.api_url.clone()).unwrap(),
            WebsocketUrl::try_from(cloud.websocket_url.clone()).unwrap(),
        );
        config.cloud.ca_file = Some(cloud.ca_file.clone());
        Self { cloud, config, _state: state }
    }

    fn rest(&self) -> Arc<Rest> {
        let tls = tls::client_config(self.config.cloud.ca_file.as_deref()).unwrap();
        Arc::new(Rest::new(&self.config.cloud, self.config.connector.uuid, Dialer::new(tls)).unwrap())
    }

    fn authenticator(&self, pincode: &str) -> Authenticator {
        Authenticator::spawn(self.rest(), Pincode::new(pincode).unwrap(), 1)
    }

    fn link(&self, authenticator: Authenticator) -> CloudSocket {
        let tls = tls::client_config(self.config.cloud.ca_file.as_deref()).unwrap();
        CloudSocket::new(SocketSettings::new(&self.config.cloud, 4095), Dialer::new(tls), authenticator, 1)
    }
}

fn hello(config: &Config) -> String {
    json!({"action": "connectorHello", "message": {
        "connector_uuid": config.connector.uuid, "protocol": 1, "agent_version": "0.1.0", "software_version": 0,
        "hardware_version": 0, "hardware_type": "classic", "has_wifi": true, "supports_doip": false,
        "buses": [], "connections": [],
    }})
    .to_string()
}
