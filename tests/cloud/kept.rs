//! The stored login, with a scripted cloud. The file is intact, damaged, another connector's, or unwritable.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::scripted::*;
use connector_agent::cloud::Cloud;
use connector_agent::cloud::login::{Authenticator, LoginStore};
use connector_agent::cloud::rest::Tokens;
use connector_agent::config::{ApiUrl, Config, Pincode, WebsocketUrl};

const LOGIN: &str = "POST /v2/authenticate/pincode";
const TOKEN: &str = "POST /oauth2/token";
const RECORD: &str = "GET /v2/connectors/5f3d760d-ade2-4a19-aea4-36e097678ae3";

#[tokio::test]
async fn after_a_restart_the_kept_token_is_used_and_there_is_no_login() {
    let rig = Rig::start().await;
    for _ in 0..5 {
        rig.run_once().await;
    }
    assert_eq!((rig.logins(), rig.refreshes()), (1, 0));
    assert!(rig.bearers().iter().all(|bearer| bearer == "Bearer access-1"), "{:?}", rig.bearers());
}

#[tokio::test]
async fn only_the_agent_can_read_the_stored_login() {
    let rig = Rig::start().await;
    rig.run_once().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&rig.state()), mode(&rig.file())), (0o700, 0o600));
    assert_eq!(fs::read_dir(rig.state()).unwrap().count(), 1, "the directory has no other file");
}

#[tokio::test]
async fn an_existing_directory_keeps_its_permissions() {
    let rig = Rig::start().await;
    fs::create_dir(rig.state()).unwrap();
    fs::set_permissions(rig.state(), fs::Permissions::from_mode(0o750)).unwrap();
    rig.run_once().await;
    assert!(rig.kept().is_some(), "the login is stored there");
    assert_eq!(fs::metadata(rig.state()).unwrap().mode() & 0o7777, 0o750);
}

#[tokio::test]
async fn an_expired_kept_token_is_refreshed_and_the_new_one_is_kept() {
    let rig = Rig::start().await;
    rig.run_once().await;
    rig.edit(r#""obtained_at":"#, r#""obtained_at":1000000,"then":"#);
    rig.run_once().await;
    rig.run_once().await;
    assert_eq!((rig.logins(), rig.refreshes()), (1, 1));
    assert_eq!(rig.bearers(), ["Bearer access-1", "Bearer access-101", "Bearer access-101"]);
    assert!(rig.kept().unwrap().contains("refresh-101"));
}

#[tokio::test]
async fn tokens_from_the_future_are_refreshed() {
    let rig = Rig::start().await;
    rig.run_once().await;
    rig.edit(r#""obtained_at":"#, r#""obtained_at":99999999999,"then":"#);
    rig.run_once().await;
    assert_eq!((rig.logins(), rig.refreshes()), (1, 1));
}

#[tokio::test]
async fn a_kept_token_that_the_cloud_refuses_costs_a_refresh_and_no_login() {
    let rig = Rig::start_with(|request, _| request.authorization.as_deref() == Some("Bearer old")).await;
    rig.run_once().await;
    rig.edit("access-1", "old");
    rig.run_once().await;
    assert_eq!((rig.logins(), rig.refreshes()), (1, 1));
}

#[tokio::test]
async fn a_kept_refresh_token_that_the_cloud_refuses_costs_one_login() {
    let rig = Rig::start().await;
    rig.run_once().await;
    rig.edit(r#""obtained_at":"#, r#""obtained_at":1000000,"then":"#);
    rig.edit("refresh-1", "revoked");
    rig.run_once().await;
    assert_eq!((rig.logins(), rig.refreshes()), (2, 1));
    rig.run_once().await;
    assert_eq!((rig.logins(), rig.refreshes()), (2, 1));
}

#[tokio::test]
async fn a_damaged_login_file_costs_one_login_and_is_replaced() {
    let rig = Rig::start().await;
    rig.run_once().await;
    let good = rig.kept().unwrap();
    let file = rig.file();
    let write = |text: &[u8]| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: Vec<Damage<'_>> = vec![
        ("gone", Box::new(|| fs::remove_file(&file).unwrap())),
        ("empty", Box::new(|| write(b""))),
        ("cut off", Box::new(|| write(&good.as_bytes()[..good.len() / 2]))),
        ("no text", Box::new(|| write(&[0xFF; 4096]))),
        ("endless", Box::new(|| write(&vec![b' '; 1 << 20]))),
        ("of a later format", Box::new(|| write(good.replace(r#""format":1"#, r#""format":2"#).as_bytes()))),
        (
            "without a token",
            Box::new(|| write(good.replace("access-", "").replace("\"1\"", "\"\"").as_bytes())),
        ),
        (
            "another connector's",
            Box::new(|| write(good.replace(UUID, "11111111-2222-3333-4444-555555555555").as_bytes())),
        ),
        ("another cloud's", Box::new(|| write(good.replace("http://127", "http://128").as_bytes()))),
        (
            "readable by others",
            Box::new(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap()),
        ),
        (
            "a link",
            Box::new(|| {
                let elsewhere = file.with_file_name("elsewhere");
                fs::rename(&file, &elsewhere).unwrap();
                symlink(&elsewhere, &file).unwrap();
            }),
        ),
        (
            "beside a leftover of a crash",
            Box::new(|| {
                fs::remove_file(&file).unwrap();
                fs::write(file.with_file_name("login.json.new"), "half of i").unwrap();
            }),
        ),
    ];
    for (index, (description, damage)) in damages.iter().enumerate() {
        damage();
        rig.run_once().await;
        assert_eq!(rig.logins(), index + 2, "a file that is {description}");
        rig.run_once().await;
        assert_eq!(rig.logins(), index + 2, "a file that was {description}, the next time");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{description}");
    }
    assert_eq!(rig.refreshes(), 0);
}

#[tokio::test]
async fn an_unwritable_state_directory_causes_one_warning_per_start() {
    let log = Log::capture();
    let rig = Rig::start().await;
    // a file is in the place of the directory
    fs::write(rig.state(), "").unwrap();
    for round in 1..=3 {
        let authenticator = rig.authenticator();
        rig.use_token(&authenticator).await;
        assert_eq!(rig.logins(), round, "one login per start");
        log.has("cannot save the login: cannot create the directory", round).await;
    }
    assert_eq!(log.count("WARN"), 3, "{}", log.text());
}

#[tokio::test]
async fn a_state_directory_that_disappears_causes_one_warning() {
    let log = Log::capture();
    let rig = Rig::start().await;
    let authenticator = rig.authenticator();
    rig.use_token(&authenticator).await;
    rig.saved("access-1").await;
    fs::remove_dir_all(rig.state()).unwrap();
    fs::write(rig.state(), "").unwrap();
    for refused in 2..4 {
        let token = soon(authenticator.token()).await;
        soon(authenticator.renewed(&token)).await;
        rig.use_token(&authenticator).await;
        assert_eq!(rig.logins(), refused);
    }
    log.has("cannot save the login", 1).await;
    fs::remove_file(rig.state()).unwrap();
    let token = soon(authenticator.token()).await;
    soon(authenticator.renewed(&token)).await;
    rig.saved("access-4").await;
    assert_eq!(log.count("cannot save the login"), 1);
}

#[tokio::test]
async fn without_a_state_directory_nothing_is_kept() {
    let rig = Rig::start().await;
    let mut config = rig.config.clone();
    config.connector.state_directory = None;
    assert!(LoginStore::new(&config).is_none());
    config.resolve_state_directory(|_| None);
    assert_eq!(config.connector.state_directory, None);
    config
        .resolve_state_directory(|name| (name == "STATE_DIRECTORY").then(|| "/var/lib/a:/var/lib/b".into()));
    assert_eq!(config.connector.state_directory, Some(PathBuf::from("/var/lib/a")));
    config.resolve_state_directory(|_| Some("/var/lib/c".into()));
    assert_eq!(
        config.connector.state_directory,
        Some(PathBuf::from("/var/lib/a")),
        "the file has precedence"
    );
}

#[test]
fn a_crash_during_a_write_leaves_the_old_or_the_new_login() {
    let directory = tempfile::tempdir().unwrap();
    let config = config("http://127.0.0.1:1", &directory.path().join("state"));
    let kept = LoginStore::new(&config).unwrap();
    let tokens = |name: &str| Tokens {
        access: name.into(),
        refresh: Some(name.into()),
        id: None,
        lifetime: Duration::from_secs(3600),
    };
    kept.save(&tokens("old")).unwrap();
    let state = directory.path().join("state");
    let new = fs::read(state.join("login.json")).unwrap();
    // the crash comes after `length` bytes of the new file
    for length in 0..=new.len() {
        fs::write(state.join("login.json.new"), &new[..length]).unwrap();
        assert!(kept.load().unwrap().is_some());
    }
    kept.save(&tokens("new")).unwrap();
    let text = fs::read_to_string(state.join("login.json")).unwrap();
    assert!(text.contains("new") && !text.contains("old"), "{text}");
    assert!(!state.join("login.json.new").exists());
}

#[test]
fn a_debug_print_hides_the_kept_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let kept = LoginStore::new(&config("http://127.0.0.1:1", directory.path())).unwrap();
    let lifetime = Duration::from_secs(60);
    kept.save(&Tokens { access: "aa-secret".into(), refresh: Some("bb-secret".into()), id: None, lifetime })
        .unwrap();
    let printed = format!("{:?} {kept:?}", kept.load().unwrap().unwrap());
    assert!(!printed.contains("-secret"), "{printed}");
    let file = directory.path().join("login.json");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("1,", "\"aa-secret\",")).unwrap();
    let error = kept.load().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("-secret"));
}

pub(crate) fn config(api_url: &str, state: &Path) -> Config {
    let mut config = Config::new(
        uuid(),
        ApiUrl::try_from(api_url.to_owned()).unwrap(),
        WebsocketUrl::try_from("ws://127.0.0.1:1".to_owned()).unwrap(),
    );
    config.connector.state_directory = Some(state.to_owned());
    config
}

pub(crate) struct Rig {
    pub server: Server,
    pub config: Config,
    pub directory: tempfile::TempDir,
}

impl Rig {
    /// A cloud that returns `access-N` for the Nth login and `access-10N` for the Nth refresh, and accepts
    /// all of them.
    async fn start() -> Self {
        Self::start_with(|_, _| false).await
    }

    /// The cloud of [`Rig::start`], which refuses the requests for which `refused` returns true.
    async fn start_with(refused: impl Fn(&Request, usize) -> bool + Send + Sync + 'static) -> Self {
        let server = Server::start(move |request, before| match request.line.as_str() {
            LOGIN => Reply::tokens(before + 1),
            TOKEN if request.body.contains("revoked") => Reply::new(400, r#"{"error":"invalid_grant"}"#),
            TOKEN => Reply::tokens(before + 101),
            RECORD if refused(request, before) => Reply::new(401, "{}"),
            RECORD => Reply::new(200, format!(r#"{{"id":4711,"uuid":"{UUID}"}}"#)),
            _ => Reply::new(500, ""),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let config = config(&server.url, &directory.path().join("state"));
        Self { server, config, directory }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join("login.json")
    }

    fn kept(&self) -> Option<String> {
        fs::read_to_string(self.file()).ok()
    }

    fn edit(&self, from: &str, to: &str) {
        let text = self.kept().unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.file(), text.replace(from, to)).unwrap();
    }

    fn authenticator(&self) -> Authenticator {
        let kept = LoginStore::new(&self.config);
        Authenticator::resume(rest(&self.config.cloud), Pincode::new(PINCODE).unwrap(), kept, 1)
    }

    async fn use_token(&self, authenticator: &Authenticator) {
        let cloud = Cloud::new(rest(&self.config.cloud), authenticator.clone(), 1);
        assert_eq!(soon(cloud.connector()).await.unwrap().id, Some(4711));
    }

    /// Starts the agent, uses the cloud once, and waits until the latest token is stored.
    async fn run_once(&self) {
        let authenticator = self.authenticator();
        self.use_token(&authenticator).await;
        let bearer = self.bearers().pop().unwrap();
        self.saved(bearer.trim_start_matches("Bearer ")).await;
    }

    /// Waits until this access token is stored.
    async fn saved(&self, token: &str) {
        let token = format!(r#""access_token":"{token}""#);
        soon(async {
            while fs::symlink_metadata(self.file()).is_ok_and(|file| file.is_symlink())
                || !self.kept().is_some_and(|kept| kept.contains(&token))
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn logins(&self) -> usize {
        self.server.count(LOGIN)
    }

    fn refreshes(&self) -> usize {
        self.server.count(TOKEN)
    }

    fn bearers(&self) -> Vec<String> {
        self.server.requests().into_iter().filter_map(|request| request.authorization).collect()
    }
}
