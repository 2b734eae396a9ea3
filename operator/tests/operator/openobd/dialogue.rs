//! A script and a test that take turns.

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::*;

/// A script that prints lines of JSON for the test, and reads lines from the test.
pub(super) struct Dialogue {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Dialogue {
    pub(super) fn start(command: &mut Command, job: &Value) -> Self {
        let piped = std::process::Stdio::piped;
        let mut child = command.arg(job.to_string()).stdout(piped()).stdin(piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line of the script.
    pub(super) async fn hears(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(200), self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.unwrap().ok_or("the script has ended").unwrap()).unwrap()
    }

    pub(super) async fn says(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}
