//! The log of the agent's process, with a cloud that puts line feeds, secrets and long texts into everything.

use std::process::Stdio;

use futures_util::SinkExt;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::link_rig::accept;
use crate::scripted::*;

/// A token as clouds issue them: longer than what could be part of another word.
const TOKEN: &str = "access-1-of-the-scripted-cloud";
const REFRESH_TOKEN: &str = "refresh-1-of-the-scripted-cloud";
const ID_TOKEN: &str = "identity-1-of-the-scripted-cloud";
const SECRETS: [&str; 4] = [TOKEN, REFRESH_TOKEN, ID_TOKEN, PINCODE];
/// Longer than any line that the agent writes.
const MAX_LINE: usize = 4000;

#[tokio::test]
async fn no_text_of_the_cloud_forges_a_line_fills_the_log_or_shows_a_secret() {
    for format in ["text", "json"] {
        let lines = log_of_a_hostile_cloud(format).await;
        let text = lines.join("\n");
        for expected in ["cannot fetch the active ticket", "reports an error", "refused a request", "offline"]
        {
            assert!(text.contains(expected), "{format}: {expected} is not in\n{text}");
        }
        for secret in SECRETS {
            assert!(!text.contains(secret), "{format}: {secret}:\n{text}");
        }
        assert!(text.contains("[redacted]"), "{format}:\n{text}");
        for line in &lines {
            assert!(line.len() < MAX_LINE, "{format}: {} bytes", line.len());
            match format {
                "text" => assert!(is_own_line(line), "{line}"),
                _ => assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}"),
            }
        }
    }
}

/// Whether the line has the time and the level of a line of this century.
fn is_own_line(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(|time| time.starts_with("20") && time.ends_with('Z'))
        && words.next().is_some_and(|level| ["DEBUG", "INFO", "WARN", "ERROR"].contains(&level))
}

/// A text that forges a line and shows the secrets.
fn forgery() -> String {
    format!("busy\r\n1999-01-01T00:00:00Z ERROR forged: {}\u{1b}[2J", SECRETS.join(" "))
}

/// The cloud's answer to a login.
fn tokens() -> serde_json::Value {
    json!({"access_token": TOKEN, "refresh_token": REFRESH_TOKEN, "id_token": ID_TOKEN})
}

/// Each secret alone at each place where the cloud can write: a title, a type and a detail of the API, headers of the API
/// and of the websocket's refusal, texts of the websocket, and the reason of its close.
#[tokio::test]
async fn no_secret_that_the_cloud_echoes_is_in_the_log_at_any_level() {
    for secret in SECRETS {
        let lines = log_of_an_echoing_cloud(secret).await;
        let text = lines.join("\n");
        assert!(!text.contains(secret), "{secret}:\n{text}");
        for expected in ["cannot fetch the active ticket", "reports an error", "refused a request", "goodbye"]
        {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}

/// The lines that an agent logs at TRACE until the cloud has closed its second websocket; the first one is refused.
async fn log_of_an_echoing_cloud(secret: &'static str) -> Vec<String> {
    let api = Server::start(move |request, _| match request.line.starts_with("POST") {
        true => Reply::new(200, tokens().to_string()).with("x-token", secret),
        false => {
            let problem =
                json!({"type": format!("/{secret}"), "title": secret, "detail": secret, "status": 403});
            Reply::new(403, problem.to_string()).with("www-authenticate", format!("Bearer error={secret}"))
        }
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut agent = start_agent(&directory, &api, &listener, "text", "trace");
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines();
    let cloud = async {
        let (mut refused, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert_ne!(refused.read(&mut request).await.unwrap(), 0);
        let head = format!("HTTP/1.1 503 {secret}\r\nx-token: {secret}\r\nRetry-After: 0\r\n");
        let answer = format!("{head}Content-Length: {}\r\n\r\n{secret}", secret.len());
        refused.write_all(answer.as_bytes()).await.unwrap();
        drop(refused);
        let (mut far, _) = accept(listener.accept().await.unwrap().0).await;
        let error =
            json!({"action": "error", "request_id": secret, "message": {"title": secret, "detail": secret}});
        let unknown = json!({"action": secret, "request_id": secret, secret: secret});
        for text in [error.to_string(), unknown.to_string(), secret.to_owned()] {
            far.send(Message::text(text)).await.unwrap();
        }
        while !api.requests().iter().any(|request| request.line.contains("active-ticket")) {
            tokio::task::yield_now().await;
        }
        far
    };
    let mut lines = Vec::new();
    let read = async {
        let mut cloud = std::pin::pin!(cloud);
        let (mut far, mut is_refused, mut is_closed) = (None, false, false);
        loop {
            tokio::select! {
                up = &mut cloud, if far.is_none() => far = Some(up),
                line = log.next_line() => {
                    let line = line.unwrap().expect("the agent runs");
                    is_refused |= line.contains("cannot fetch the active ticket");
                    let is_last = line.contains("goodbye");
                    lines.push(line);
                    if is_last {
                        return;
                    }
                }
            }
            if let Some(far) = far.as_mut().filter(|_| is_refused && !is_closed) {
                let reason = format!("goodbye {secret}").into();
                far.close(Some(CloseFrame { code: CloseCode::Restart, reason })).await.unwrap();
                is_closed = true;
            }
        }
    };
    soon(read).await;
    lines
}

/// An agent whose cloud this is, and which writes its log to a pipe.
fn start_agent(
    directory: &tempfile::TempDir,
    api: &Server,
    listener: &TcpListener,
    format: &str,
    level: &str,
) -> tokio::process::Child {
    let file = directory.path().join("agent.toml");
    let config = format!(
        "[connector]\nuuid = \"{UUID}\"\n[cloud]\napi_url = \"{}\"\nwebsocket_url = \"ws://{}/\"\n[log]\nformat = \"{format}\"\n",
        api.url,
        listener.local_addr().unwrap(),
    );
    std::fs::write(&file, config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_connector-agent"))
        .args(["run", "--config"])
        .arg(&file)
        .env("CONNECTOR_PINCODE", PINCODE)
        .env("RUST_LOG", level)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The lines that an agent logs at DEBUG until the cloud has closed its websocket.
async fn log_of_a_hostile_cloud(format: &str) -> Vec<String> {
    let api = Server::start(|request, _| match request.line.starts_with("POST") {
        true => Reply::new(200, tokens().to_string()),
        false => {
            let problem = json!({"title": forgery(), "detail": "x".repeat(100_000), "status": 403});
            Reply::new(403, problem.to_string())
        }
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut agent = start_agent(&directory, &api, &listener, format, "debug");
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines();
    let cloud = async {
        let (mut far, _) = accept(listener.accept().await.unwrap().0).await;
        let error = json!({"action": "error", "message": {"title": forgery(), "detail": "y".repeat(50_000)}});
        let unknown = json!({"action": forgery(), "request_id": "7"});
        for text in [error.to_string(), unknown.to_string(), forgery()] {
            far.send(Message::text(text)).await.unwrap();
        }
        while !api.requests().iter().any(|request| request.line.contains("active-ticket")) {
            tokio::task::yield_now().await;
        }
        far
    };
    let mut lines = Vec::new();
    let read = async {
        let mut far = cloud.await;
        // the close comes last, so that its line ends the log
        while let Some(line) = log.next_line().await.unwrap() {
            let is_last = line.contains("offline");
            let is_ticket = line.contains("cannot fetch the active ticket");
            lines.push(line);
            if is_ticket {
                let reason = format!("bye\n{TOKEN}\r\nforged").into();
                far.close(Some(CloseFrame { code: CloseCode::Restart, reason })).await.unwrap();
            }
            if is_last {
                return;
            }
        }
    };
    soon(read).await;
    lines
}
