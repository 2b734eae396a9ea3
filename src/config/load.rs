//! Reading the configuration file, with everything that is wrong with it.

use std::path::Path;

use secrecy::zeroize::Zeroizing;

use super::check;
use super::configuration::{Config, DEFAULT_PATH};
use super::parse::{self, Parsed};
use super::problem::{ConfigError, ConfigProblem};

impl Config {
    /// Reads the configuration from this file.
    ///
    /// The files and devices that the configuration names are not read: see [`Config::check`] and
    /// [`Config::pincode`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it has errors; the error lists all of them.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_text(path)?, path)
    }

    /// Reads the configuration from this text. `path` is the file that the text is from.
    ///
    /// # Errors
    ///
    /// The text has errors; the error lists all of them.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        match parse_and_check(text, path) {
            (Some(config), problems) if problems.iter().all(ConfigProblem::is_warning) => Ok(config),
            (_, problems) => Err(ConfigError::Invalid(problems)),
        }
    }

    /// All faults of the file, and of the pincode, certificates, devices and board that it names.
    pub(crate) fn check_file(path: &Path) -> Vec<ConfigProblem> {
        match read(path) {
            Ok((config, mut problems)) => {
                problems.extend(config.iter().flat_map(check::machine));
                problems
            }
            Err(ConfigError::Invalid(problems)) => problems,
            Err(ConfigError::Read { source, .. }) => {
                let fix = "create it (docs/connector-agent.example.toml is an example), or name another with --config";
                let what = format!("cannot read the configuration: {source}");
                vec![ConfigProblem::error(what, fix).at_path(path)]
            }
        }
    }

    /// The warnings about the configuration, and all faults of the pincode, certificates, devices and board
    /// that it names.
    pub(crate) fn check(&self) -> Vec<ConfigProblem> {
        let path = self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let mut problems: Vec<_> =
            check::contradictions(self).into_iter().map(|problem| problem.at_path(path)).collect();
        problems.extend(check::machine(self));
        problems
    }
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let text = std::fs::read_to_string(path);
    text.map(Zeroizing::new).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// The configuration as far as it can be understood, and everything that is wrong in the file.
pub(super) fn read(path: &Path) -> Result<(Option<Config>, Vec<ConfigProblem>), ConfigError> {
    Ok(parse_and_check(&read_text(path)?, path))
}

fn parse_and_check(text: &str, path: &Path) -> (Option<Config>, Vec<ConfigProblem>) {
    let Parsed { mut config, mut problems, lines } = parse::parse(text);
    if let Some(config) = &mut config {
        config.path = Some(path.to_owned());
        config.resolve_relative_to(path.parent().unwrap_or(Path::new("")));
        for problem in check::contradictions(config) {
            let line = problem.key.as_deref().and_then(|key| lines.of(key));
            if !problems.iter().any(|known| is_caused_by(&problem, known)) {
                problems.push(problem.at_line(line));
            }
        }
    }
    problems = problems.into_iter().map(|problem| problem.at_path(path)).collect();
    problems.sort_by_key(|problem| problem.line);
    (config, problems)
}

/// Whether a contradiction is only the consequence of a problem with the text: a value that could not be
/// understood has been replaced by a default.
fn is_caused_by(contradiction: &ConfigProblem, known: &ConfigProblem) -> bool {
    let (Some(known), Some(key)) = (&known.key, &contradiction.key) else { return false };
    let is_of_same_bus = known.strip_suffix(".kind").is_some_and(|bus| key.starts_with(bus));
    is_of_same_bus || key.starts_with(known.as_str())
}
