//! The demo's output: one line for each step, and a table at the end.

use connector_agent::print_line;
use tokio::time::Instant;

/// Width of the actors' column.
const ACTOR: usize = 9;

/// Prints each step with the time since the start of the demo.
#[derive(Debug)]
pub(super) struct Story {
    start: Instant,
}

impl Story {
    /// Prints the title, and starts the clock.
    pub(super) fn new() -> Self {
        print_line!("A vehicle, a connector, a cloud and an operator in one complete diagnostic session.\n");
        Self { start: Instant::now() }
    }

    /// Prints one step of an actor.
    pub(super) fn report(&self, actor: &str, text: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut lines = text.lines();
        print_line!("{seconds:>6.1} s  {actor:<ACTOR$}  {}", lines.next().unwrap_or_default());
        for line in lines {
            print_line!("{:>8}  {:<ACTOR$}  {line}", "", "");
        }
    }
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    name: String,
    value: String,
    /// `None` for a row that only informs.
    right: Option<bool>,
}

/// The results of the demo.
#[derive(Debug, Default)]
pub(super) struct ResultTable {
    rows: Vec<Row>,
}

impl ResultTable {
    /// Adds a row that only informs.
    pub(super) fn note(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push(Row { name: name.to_owned(), value: value.into(), right: None });
    }

    /// Adds a row that is right or wrong.
    pub(super) fn check(&mut self, name: &str, value: impl Into<String>, right: bool) {
        self.rows.push(Row { name: name.to_owned(), value: value.into(), right: Some(right) });
    }

    /// Prints the table. Returns whether every check was right.
    pub(super) fn print(&self) -> bool {
        let name_width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let value_width = self.rows.iter().map(|row| row.value.chars().count()).max().unwrap_or_default();
        let rule = "-".repeat(name_width + value_width + 11);
        print_line!("\n{rule}");
        for row in &self.rows {
            let verdict = match row.right {
                None => "",
                Some(true) => "right",
                Some(false) => "WRONG",
            };
            let line = format!("  {:<name_width$}  {:<value_width$}  {verdict}", row.name, row.value);
            print_line!("{}", line.trim_end());
        }
        print_line!("{rule}");
        let wrong = self.rows.iter().filter(|row| row.right == Some(false)).count();
        let right = self.rows.iter().filter(|row| row.right == Some(true)).count();
        if wrong == 0 {
            print_line!("  All {right} checks were right.");
        } else {
            print_line!("  {wrong} of {} checks were wrong.", right + wrong);
        }
        wrong == 0 && right > 0
    }
}
