//! The resolvers of the machine, in the files of the programs that manage them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The file with the addresses of the resolvers (`resolv.conf(5)`).
const RESOLV_CONF: &str = "etc/resolv.conf";
/// The files with the resolvers of the machine: those that programs ask, and those that systemd-resolved and dnsmasq
/// ask on their behalf.
const MACHINE: [&str; 3] = [RESOLV_CONF, "run/systemd/resolve/resolv.conf", "run/dnsmasq/resolv.conf"];
/// Directories in which resolvconf and openresolv keep a file for each interface and program, such as `eth1.udhcpc`.
const RECORDS: [&str; 2] = ["run/resolvconf/interface", "run/resolvconf/interfaces"];
/// The directory in which systemd-resolved keeps a file for each interface, by number.
const LINKS: &str = "run/systemd/resolve/netif";
/// How much of a file is read, in bytes: files of resolvers have some hundred.
const MAX_FILE: u64 = 64 * 1024;
/// How many files of a directory are looked at: it has one for each interface and program.
const MAX_RECORDS: usize = 64;

/// The contents of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Source {
    /// The addresses of resolvers.
    servers: BTreeSet<String>,
    /// Everything else that decides how names are resolved, such as search domains.
    options: BTreeSet<String>,
}

/// The resolvers of the machine at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ResolverSettings {
    /// Where `/etc/resolv.conf` leads, if it is a symbolic link.
    link: Option<PathBuf>,
    machine: BTreeMap<PathBuf, Source>,
    /// The resolvers that a program has registered for the vehicle's interface.
    vehicle: BTreeMap<PathBuf, Source>,
}

impl ResolverSettings {
    /// Reads the settings below this directory, with those of the interface with this name and number.
    pub(super) fn read(root: &Path, interface: &str, index: u32) -> io::Result<Self> {
        let link = std::fs::read_link(root.join(RESOLV_CONF)).ok();
        let mut machine = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for path in MACHINE.map(|path| root.join(path)) {
            // a file that is a link to another one of the list is read once
            let is_new = seen.insert(std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone()));
            if is_new && let Some(source) = read_source(&path)? {
                machine.insert(path, source);
            }
        }
        let mut vehicle = BTreeMap::new();
        let own = std::iter::once(root.join(LINKS).join(index.to_string()));
        for path in own.chain(records(root, interface)) {
            if let Some(source) = read_source(&path)? {
                vehicle.insert(path, source);
            }
        }
        Ok(Self { link, machine, vehicle })
    }

    /// The settings without those of the vehicle's interface.
    pub(super) fn without_vehicle(self) -> Self {
        Self { vehicle: BTreeMap::new(), ..self }
    }

    /// The differences to the settings `before`, in words.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.link != before.link {
            let kind = |link: &Option<PathBuf>| match link {
                Some(target) => format!("a link to {}", target.display()),
                None => "no link".to_owned(),
            };
            changes.push(format!("/{RESOLV_CONF} is {}, and was {}", kind(&self.link), kind(&before.link)));
        }
        for (now, before) in [(&self.machine, &before.machine), (&self.vehicle, &before.vehicle)] {
            let paths: BTreeSet<_> = now.keys().chain(before.keys()).collect();
            for path in paths {
                let source =
                    |sources: &BTreeMap<PathBuf, Source>| sources.get(path).cloned().unwrap_or_default();
                changes.extend(source(now).changes_since(&source(before), path));
            }
        }
        changes
    }
}

impl Source {
    /// Parses a file in the format of `resolv.conf(5)`, or in that of systemd-resolved.
    fn parse(text: &str) -> Self {
        let mut source = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                ["nameserver", address, ..] => {
                    source.servers.insert((*address).to_owned());
                }
                ["search" | "domain" | "options" | "sortlist", _, ..] => {
                    source.options.insert(words.join(" "));
                }
                [first, rest @ ..] if let Some(server) = first.strip_prefix("SERVERS=") => {
                    let servers = std::iter::once(server).chain(rest.iter().copied());
                    source.servers.extend(servers.filter(|server| !server.is_empty()).map(str::to_owned));
                }
                [first, ..] if first.strip_prefix("DOMAINS=").is_some_and(|domain| !domain.is_empty()) => {
                    source.options.insert(words.join(" "));
                }
                _ => {}
            }
        }
        source
    }

    fn changes_since(&self, before: &Self, path: &Path) -> Vec<String> {
        [
            ("names other resolvers", self.servers.difference(&before.servers)),
            ("no longer names the resolvers", before.servers.difference(&self.servers)),
            ("has other options", self.options.difference(&before.options)),
            ("no longer has the options", before.options.difference(&self.options)),
        ]
        .into_iter()
        .filter_map(|(what, different)| {
            let different: Vec<_> = different.map(String::as_str).collect();
            (!different.is_empty()).then(|| format!("{} {what}: {}", path.display(), different.join(", ")))
        })
        .collect()
    }
}

/// Reads a file. `None` if there is none, or if it belongs to a program that lets no other read it.
fn read_source(path: &Path) -> io::Result<Option<Source>> {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(Source::parse(&String::from_utf8_lossy(&bytes)))),
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied | NotADirectory | IsADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The files of resolvconf and openresolv about this interface.
fn records(root: &Path, interface: &str) -> Vec<PathBuf> {
    let mut records = Vec::new();
    for directory in RECORDS {
        let Ok(entries) = std::fs::read_dir(root.join(directory)) else { continue };
        let names = entries.take(MAX_RECORDS).filter_map(|entry| Some(entry.ok()?.path()));
        records.extend(names.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix(interface).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root of a machine with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn read(root: &tempfile::TempDir) -> ResolverSettings {
        ResolverSettings::read(root.path(), "eth1", 7).unwrap()
    }

    /// The differences, without the names of the temporary directories.
    fn changes(now: &ResolverSettings, before: &ResolverSettings, root: &tempfile::TempDir) -> Vec<String> {
        let root = format!("{}/", root.path().display());
        now.changes_since(before).into_iter().map(|change| change.replace(&root, "")).collect()
    }

    #[test]
    fn resolvers_and_options_that_come_and_go_are_reported() {
        let root = machine(&[(
            RESOLV_CONF,
            "# by hand\nsearch example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\n",
        )]);
        let before = read(&root);
        assert_eq!(changes(&before, &before, &root), [] as [&str; 0]);
        let text =
            "nameserver 10.77.0.1 # vehicle\nnameserver 192.0.2.1\n nameserver\tfd00::1\nsearch  vehicle\n";
        std::fs::write(root.path().join(RESOLV_CONF), text).unwrap();
        assert_eq!(
            changes(&read(&root), &before, &root),
            [
                "etc/resolv.conf names other resolvers: 10.77.0.1, fd00::1",
                "etc/resolv.conf no longer names the resolvers: 192.0.2.2",
                "etc/resolv.conf has other options: search vehicle",
                "etc/resolv.conf no longer has the options: options edns0, search example",
            ]
        );
        std::fs::remove_file(root.path().join(RESOLV_CONF)).unwrap();
        let gone = changes(&read(&root), &before, &root);
        assert_eq!(gone[0], "etc/resolv.conf no longer names the resolvers: 192.0.2.1, 192.0.2.2");
    }

    #[test]
    fn a_resolv_conf_that_becomes_a_file_or_another_link_is_reported() {
        let stub = "nameserver 127.0.0.53\n";
        let root = machine(&[
            (RESOLV_CONF, stub),
            ("run/systemd/resolve/stub-resolv.conf", stub),
            ("run/other.conf", "nameserver 10.77.0.1\n"),
        ]);
        let path = root.path().join(RESOLV_CONF);
        let link = |target: &str| {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(target, &path).unwrap();
        };
        link("../run/systemd/resolve/stub-resolv.conf");
        let before = read(&root);
        link("../run/other.conf");
        assert_eq!(
            changes(&read(&root), &before, &root),
            [
                "/etc/resolv.conf is a link to ../run/other.conf, and was a link to ../run/systemd/resolve/stub-resolv.conf",
                "etc/resolv.conf names other resolvers: 10.77.0.1",
                "etc/resolv.conf no longer names the resolvers: 127.0.0.53",
            ]
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, stub).unwrap();
        assert_eq!(
            changes(&read(&root), &before, &root),
            ["/etc/resolv.conf is no link, and was a link to ../run/systemd/resolve/stub-resolv.conf"]
        );
    }

    #[test]
    fn resolvers_of_one_interface_at_systemd_resolved_and_resolvconf_are_reported() {
        let root = machine(&[
            (RESOLV_CONF, "nameserver 127.0.0.53\n"),
            ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n"),
            ("run/systemd/resolve/netif/3", "SERVERS=192.0.2.1\n"),
            ("run/resolvconf/interface/wlan0.dhclient", "nameserver 192.0.2.1\n"),
        ]);
        let before = read(&root);
        for (path, text) in [
            ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\nnameserver 10.77.0.1\n"),
            ("run/systemd/resolve/netif/7", "# private\nLLMNR=yes\nSERVERS=10.77.0.1 fd00::1\nDOMAINS=~.\n"),
            ("run/systemd/resolve/netif/8", "SERVERS=192.0.2.9\n"),
            ("run/resolvconf/interface/eth1.udhcpc", "nameserver 10.77.0.2\n"),
            ("run/resolvconf/interface/eth10.udhcpc", "nameserver 192.0.2.9\n"),
            ("run/resolvconf/interfaces/eth1", "nameserver 10.77.0.3\n"),
        ] {
            std::fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(path), text).unwrap();
        }
        let expected = [
            "run/systemd/resolve/resolv.conf names other resolvers: 10.77.0.1",
            "run/resolvconf/interface/eth1.udhcpc names other resolvers: 10.77.0.2",
            "run/resolvconf/interfaces/eth1 names other resolvers: 10.77.0.3",
            "run/systemd/resolve/netif/7 names other resolvers: 10.77.0.1, fd00::1",
            "run/systemd/resolve/netif/7 has other options: DOMAINS=~.",
        ];
        let after = read(&root);
        assert_eq!(changes(&after, &before, &root), expected);
        // what an earlier client has left is one too many as well
        assert_eq!(changes(&after, &after.clone().without_vehicle(), &root), expected[1..]);
    }

    #[test]
    fn a_resolv_conf_that_is_the_file_of_systemd_resolved_is_reported_once() {
        let root =
            machine(&[("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n"), ("etc/hosts", "")]);
        std::os::unix::fs::symlink("../run/systemd/resolve/resolv.conf", root.path().join(RESOLV_CONF))
            .unwrap();
        let before = read(&root);
        std::fs::write(root.path().join("run/systemd/resolve/resolv.conf"), "nameserver 10.77.0.1\n")
            .unwrap();
        assert_eq!(
            changes(&read(&root), &before, &root),
            [
                "etc/resolv.conf names other resolvers: 10.77.0.1",
                "etc/resolv.conf no longer names the resolvers: 192.0.2.1"
            ]
        );
    }

    #[test]
    fn a_machine_without_any_of_the_files_has_no_resolvers() {
        assert_eq!(read(&machine(&[])), ResolverSettings::default());
    }
}
