//! What is told: a line a step, and a table at the end.

use tokio::time::Instant;

/// How wide the actors' column is.
const ACTOR: usize = 9;

/// Tells what happens, with the time since the beginning.
#[derive(Debug)]
pub(super) struct Story {
    start: Instant,
}

impl Story {
    /// Begins now.
    pub(super) fn new() -> Self {
        println!(
            "A vehicle, a connector, a cloud and an operator: one diagnostic session from end to end.\n"
        );
        Self { start: Instant::now() }
    }

    /// A line: who does what.
    pub(super) fn tell(&self, actor: &str, what: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut lines = what.lines();
        println!("{seconds:>6.1} s  {actor:<ACTOR$}  {}", lines.next().unwrap_or_default());
        for line in lines {
            println!("{:>8}  {:<ACTOR$}  {line}", "", "");
        }
    }
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    name: String,
    value: String,
    /// `None` where there is nothing to be right or wrong.
    right: Option<bool>,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// A row that only tells something.
    pub(super) fn note(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push(Row { name: name.to_owned(), value: value.into(), right: None });
    }

    /// A row that is right or wrong.
    pub(super) fn check(&mut self, name: &str, value: impl Into<String>, right: bool) {
        self.rows.push(Row { name: name.to_owned(), value: value.into(), right: Some(right) });
    }

    /// Prints it; whether all was right.
    pub(super) fn print(&self) -> bool {
        let name_width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let value_width = self.rows.iter().map(|row| row.value.chars().count()).max().unwrap_or_default();
        let rule = "-".repeat(name_width + value_width + 11);
        println!("\n{rule}");
        for row in &self.rows {
            let verdict = match row.right {
                None => "",
                Some(true) => "right",
                Some(false) => "WRONG",
            };
            let line = format!("  {:<name_width$}  {:<value_width$}  {verdict}", row.name, row.value);
            println!("{}", line.trim_end());
        }
        println!("{rule}");
        let wrong = self.rows.iter().filter(|row| row.right == Some(false)).count();
        let right = self.rows.iter().filter(|row| row.right == Some(true)).count();
        if wrong == 0 {
            println!("  All {right} checks were right.");
        } else {
            println!("  {wrong} of {} checks went wrong.", right + wrong);
        }
        wrong == 0 && right > 0
    }
}
