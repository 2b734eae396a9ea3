//! The kept record of a rejected login, with a scripted cloud.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use connector_agent::cloud::LoginState;
use connector_agent::cloud::login::{Authenticator, LoginStore};
use connector_agent::config::Pincode;

use crate::kept::{Rig, config};
use crate::scripted::*;

#[tokio::test]
async fn an_agent_that_keeps_restarting_does_not_try_a_rejected_pincode_more_often() {
    let log = Log::capture();
    let rig = RejectingRig::start().await;
    for start in 1..=10 {
        let authenticator = rig.authenticator(PINCODE);
        rig.rejected(&authenticator).await;
        rig.kept_rejections(1).await;
        assert_eq!(rig.logins(), 1, "start {start}");
    }
    log.has("did not accept this connector's UUID and pincode before the restart", 9).await;
    let file = rig.file();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains("94571") && !log.text().contains("94571"));

    // after the minute there is one more login, and the next wait is two minutes
    rig.edit(r#""rejected_at":"#, r#""rejected_at":1000,"then":"#);
    for _ in 0..3 {
        let authenticator = rig.authenticator(PINCODE);
        rig.rejected(&authenticator).await;
        rig.kept_rejections(2).await;
        assert_eq!(rig.logins(), 2);
    }
}

#[tokio::test]
async fn a_corrected_pincode_is_tried_immediately_and_clears_the_rejections() {
    let rig = RejectingRig::start().await;
    let authenticator = rig.authenticator(PINCODE);
    rig.rejected(&authenticator).await;
    rig.kept_rejections(1).await;
    rig.correct_pincode();
    let authenticator = rig.authenticator("right");
    soon(authenticator.token()).await;
    assert_eq!(rig.logins(), 2);
    soon(async {
        while rig.file().exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_kept_rejection_is_the_same_for_every_pincode() {
    let rig = RejectingRig::start().await;
    let mut kept = Vec::new();
    for pincode in ["1234", "1235", "a-much-longer-pincode"] {
        let authenticator = rig.authenticator(pincode);
        rig.rejected(&authenticator).await;
        rig.kept_rejections(1).await;
        let text = fs::read_to_string(rig.file()).unwrap();
        kept.push(text.split("\"rejected_at\"").next().unwrap().to_owned());
        fs::remove_file(rig.file()).unwrap();
    }
    assert!(kept.iter().all(|text| *text == kept[0]), "{kept:?}");
}

#[tokio::test]
async fn damaged_records_of_rejections_cost_one_login() {
    let rig = RejectingRig::start().await;
    for (round, damage) in ["", "{", "[]", r#"{"format":2}"#].into_iter().enumerate() {
        let authenticator = rig.authenticator(PINCODE);
        rig.rejected(&authenticator).await;
        rig.kept_rejections(1).await;
        assert_eq!(rig.logins(), round + 1, "{damage}");
        fs::write(rig.file(), damage).unwrap();
    }
}

/// A cloud that accepts the pincode `right` and no other.
struct RejectingRig(Rig);

impl RejectingRig {
    async fn start() -> Self {
        let server = Server::start(|request, _| match request.body.contains("right") {
            true => Reply::tokens(1),
            false => Reply::new(401, "{}"),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(&server.url, &directory.path().join("state"));
        let file = directory.path().join("pincode");
        fs::write(&file, PINCODE).unwrap();
        config.connector.pincode_file = Some(file);
        Self(Rig { server, config, directory })
    }

    /// Writes the pincode's file, at another time than before.
    fn correct_pincode(&self) {
        let file = fs::File::options().write(true).open(self.0.directory.path().join("pincode")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    }

    fn authenticator(&self, pincode: &str) -> Authenticator {
        let Rig { config, .. } = &self.0;
        let kept = LoginStore::new(config);
        Authenticator::resume(rest(&config.cloud), Pincode::new(pincode).unwrap(), kept, 1)
    }

    async fn rejected(&self, authenticator: &Authenticator) {
        let mut status = authenticator.status();
        soon(status.wait_for(|status| status.login == LoginState::Rejected)).await.unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.state().join("rejected.json")
    }

    async fn kept_rejections(&self, count: u32) {
        let count = format!(r#""count":{count}"#);
        let kept = || fs::read_to_string(self.file()).is_ok_and(|text| text.contains(&count));
        soon(async {
            while !kept() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.file(), text.replace(from, to)).unwrap();
    }

    fn logins(&self) -> usize {
        self.0.logins()
    }
}
