//! The progress of programming: a bar on a terminal, and a few lines elsewhere.

use std::fmt;
use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::flash::Step;

/// The share of the firmware after which a line is printed if there is no terminal, in percent.
const LINES_EVERY: usize = 25;

/// Shows the progress of programming.
pub struct FlashProgress<'a> {
    total: usize,
    print: Box<dyn FnMut(&str) + Send + 'a>,
    bar: Option<ProgressBar>,
    printed: usize,
    step: Option<Step>,
}

impl fmt::Debug for FlashProgress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashProgress").field("step", &self.step).finish_non_exhaustive()
    }
}

impl<'a> FlashProgress<'a> {
    /// The progress for a firmware of `total` bytes; `print` receives one line at a time.
    pub fn new(total: usize, print: impl FnMut(&str) + Send + 'a) -> Self {
        Self { total, print: Box::new(print), bar: None, printed: 0, step: None }
    }

    /// Shows a step.
    pub fn handle(&mut self, step: Step) {
        let begins =
            self.step.is_none_or(|last| std::mem::discriminant(&last) != std::mem::discriminant(&step));
        self.step = Some(step);
        if begins {
            self.end();
            (self.print)(step.name());
        }
        if let Step::Transfer { confirmed } = step {
            self.show(confirmed);
        }
    }

    fn show(&mut self, confirmed: usize) {
        if !std::io::stderr().is_terminal() {
            let percent = (confirmed.saturating_mul(100) / self.total.max(1)) / LINES_EVERY * LINES_EVERY;
            if percent > self.printed {
                self.printed = percent;
                (self.print)(&format!("{percent:>3} %  {confirmed} of {} bytes", self.total));
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

    /// Ends the progress bar, and leaves it on the terminal.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}
