//! The manual and the shell completions that packages contain are those of the command line.
//!
//! After a change of the command line, `UPDATE_MANUAL=1 cargo test --lib manual_tests` writes them.

use std::collections::BTreeMap;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// The command line, without the commit in its version.
fn command() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}

/// Writes the files that packages contain.
fn generate(folder: &Path) -> std::io::Result<()> {
    clap_mangen::generate_to(command().disable_help_subcommand(true), folder)?;
    for (shell, name) in [
        (Shell::Bash, "connector-agent.bash"),
        (Shell::Zsh, "_connector-agent"),
        (Shell::Fish, "connector-agent.fish"),
    ] {
        let mut script = std::fs::File::create(folder.join(name))?;
        clap_complete::generate(shell, &mut command(), "connector-agent", &mut script);
    }
    Ok(())
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn the_packed_manual_and_completions_are_those_of_the_command_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/packaging/manual");
    if std::env::var_os("UPDATE_MANUAL").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        generate(&folder).unwrap();
    }
    let generated = tempfile::tempdir().unwrap();
    generate(generated.path()).unwrap();
    let (packed, generated) = (files(&folder), files(generated.path()));
    assert_eq!(packed.keys().collect::<Vec<_>>(), generated.keys().collect::<Vec<_>>());
    for (name, content) in generated {
        let is_same = packed[&name] == content;
        assert!(
            is_same,
            "{name} is of another command line: run UPDATE_MANUAL=1 cargo test --lib manual_tests"
        );
    }
}
