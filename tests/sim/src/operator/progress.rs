//! How far programming is: a bar on a terminal, a few lines elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::flash::Step;

/// Without a terminal, a line is printed for each of these shares of the firmware, in percent.
const LINES_EVERY: usize = 25;

/// See the module.
#[derive(Debug)]
pub struct FlashProgress {
    total: usize,
    bar: Option<ProgressBar>,
    told: usize,
}

impl FlashProgress {
    /// For a firmware of this many bytes.
    pub fn new(total: usize) -> Self {
        Self { total, bar: None, told: 0 }
    }

    /// Shows a step.
    pub fn handle(&mut self, step: Step) {
        let Step::Transfer { confirmed } = step else {
            self.end();
            eprintln!("  {} …", step.name());
            return;
        };
        if !std::io::stderr().is_terminal() {
            let percent = (confirmed.saturating_mul(100) / self.total.max(1)) / LINES_EVERY * LINES_EVERY;
            if percent > self.told {
                self.told = percent;
                eprintln!("  {percent:>3} %  {confirmed} of {} bytes", self.total);
            } else if confirmed == 0 {
                eprintln!("  {} …", step.name());
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(self.total as u64);
            let template = "  {bar:40} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(confirmed as u64);
    }

    /// Leaves the bar as it is.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}
