//! The version that `--version` prints: with the commit of the sources, except in a debug build, which each commit would
//! otherwise compile again.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=CONNECTOR_AGENT_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let built = match std::env::var("CONNECTOR_AGENT_COMMIT") {
        Ok(commit) => format!("commit {commit}"),
        Err(_) if is_release => {
            git_commit().map_or_else(|| "commit unknown".to_owned(), |commit| format!("commit {commit}"))
        }
        Err(_) => "debug build".to_owned(),
    };
    println!("cargo::rustc-env=CONNECTOR_AGENT_VERSION={version} ({built})");
}

/// The commit of the sources, if they have a history.
fn git_commit() -> Option<String> {
    let log = git(&["rev-parse", "--absolute-git-dir"])?;
    // this file changes with each commit and each change of the branch
    println!("cargo::rerun-if-changed={log}/logs/HEAD");
    git(&["rev-parse", "--short=10", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
