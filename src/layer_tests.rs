//! The structure of `src`: layers, files without circles, pure modules, names and sizes.
//!
//! The layers and the pure modules stand in one place, the block `layers` of `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file of production code, in lines.
const MAX_LINES: usize = 450;
/// The words that a pure module must not contain: runtimes, sockets, files, threads and clocks.
const IMPURE: [&str; 12] = [
    "tokio",
    "socket2",
    "rustix",
    "hyper",
    "TcpStream",
    "UdpSocket",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "async fn",
    ".await",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`, with paths relative to it.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
    })
}

/// The code of a file: without comments, strings and its inline tests.
fn production(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let code = text[..end].lines().map(|line| {
        let is_comment = line.trim_start().starts_with("//");
        if is_comment { "" } else { line.split(" // ").next().unwrap() }
    });
    code.collect::<Vec<_>>().join("\n")
}

/// The module of a file of `src`: `a::b` for `a/b.rs` and `a/b/mod.rs`.
fn module_of(file: &Path) -> String {
    let path = file.with_extension("").to_string_lossy().replace('/', "::");
    match path.strip_suffix("::mod") {
        Some(module) => module.to_owned(),
        None if path == "lib" => String::new(),
        None => path,
    }
}

fn joined(module: &str, rest: &str) -> String {
    if module.is_empty() { rest.to_owned() } else { format!("{module}::{rest}") }
}

/// The paths that a use tree names: `a::{b, c::d}` names `a::b` and `a::c::d`.
fn leaves(tree: &str, prefix: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        found.push(format!("{prefix}{}", path.trim_end_matches("::self")));
        return;
    };
    let (head, group) = (&tree[..open], &tree[open + 1..tree.rfind('}').unwrap()]);
    let (mut depth, mut start) = (0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                leaves(&group[start..at], &format!("{prefix}{head}"), found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        leaves(&group[start..], &format!("{prefix}{head}"), found);
    }
}

/// A path from the root of the crate, if it names something in this crate.
fn absolute(path: &str, module: &str, children: &BTreeSet<String>) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_owned());
    }
    if let Some(rest) = path.strip_prefix("self::") {
        return Some(joined(module, rest));
    }
    let (mut base, mut rest, mut is_relative) = (module, path, false);
    while let Some(above) = rest.strip_prefix("super::") {
        base = base.rsplit_once("::").map_or("", |(parent, _)| parent);
        rest = above;
        is_relative = true;
    }
    if is_relative {
        return Some(joined(base, rest));
    }
    let first = path.split("::").next().unwrap();
    children.contains(&joined(module, first)).then(|| joined(module, path))
}

struct Source {
    module: String,
    code: String,
    /// The paths that the file imports or names, from the root of the crate.
    imports: Vec<String>,
    /// The names that the file re-exports from its own children, with their paths.
    hands_on: BTreeMap<String, String>,
}

/// The files of `src` without tests, by path.
fn sources() -> BTreeMap<String, Source> {
    let files: Vec<_> = rust_files(&root().join("src")).into_iter().filter(|file| !is_test(file)).collect();
    let modules: BTreeSet<String> = files.iter().map(|file| module_of(file)).collect();
    let read = |file: &PathBuf| {
        let (module, text) = (module_of(file), fs::read_to_string(root().join("src").join(file)).unwrap());
        let code = production(&text);
        let (mut imports, mut hands_on) = (Vec::new(), BTreeMap::new());
        let mut rest = String::new();
        for statement in code.split_inclusive(';') {
            let line = statement.trim_start().rsplit("\n\n").next().unwrap().trim();
            let is_public = line.starts_with("pub");
            let is_use = line.split('{').next().unwrap().split_whitespace().any(|word| word == "use")
                && !line.contains(" fn ");
            let Some(tree) = is_use.then(|| line.split_once("use ")).flatten().map(|(_, tree)| tree) else {
                rest.push_str(statement);
                continue;
            };
            let mut paths = Vec::new();
            leaves(tree.trim_end_matches(';'), "", &mut paths);
            for path in paths.iter().filter_map(|path| absolute(path, &module, &modules)) {
                let is_child = path.starts_with(&format!("{module}::")) || module.is_empty();
                if is_public && is_child {
                    let name = path.rsplit("::").next().unwrap().to_owned();
                    hands_on.insert(name, path);
                } else {
                    imports.push(path);
                }
            }
        }
        for (at, _) in rest.match_indices("crate::").filter(|(at, _)| !rest[..*at].ends_with("in ")) {
            let path = &rest[at + 7..];
            let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
            imports.push(path[..end].trim_end_matches(':').to_owned());
        }
        (file.to_string_lossy().into_owned(), Source { module, code, imports, hands_on })
    };
    files.iter().map(read).collect()
}

/// The file that defines the item of a path. Modules that re-export the item are looked through.
fn defining<'a>(
    path: &str,
    by_module: &BTreeMap<&'a str, &'a str>,
    all: &BTreeMap<String, Source>,
) -> Option<&'a str> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let mut module = path.as_str();
        let file = loop {
            if let Some(file) = by_module.get(module) {
                break *file;
            }
            module = module.rsplit_once("::")?.0;
        };
        let item = path[module.len()..].trim_start_matches("::").split("::").next().unwrap().to_owned();
        match all[file].hands_on.get(&item) {
            Some(next) if *next != path => path.clone_from(next),
            _ => return Some(file),
        }
    }
    None
}

/// The files that each file imports.
fn imports(all: &BTreeMap<String, Source>) -> BTreeMap<&str, BTreeSet<&str>> {
    let by_module: BTreeMap<&str, &str> =
        all.iter().map(|(file, source)| (source.module.as_str(), file.as_str())).collect();
    let of = |(file, source): (&'_ String, &'_ Source)| -> BTreeSet<&str> {
        let targets = source.imports.iter().filter_map(|path| defining(path, &by_module, all));
        targets.filter(|target| target != file && *target != "lib.rs").collect()
    };
    all.iter().map(|(file, source)| (file.as_str(), of((file, source)))).collect()
}

/// The layers from top to bottom, and the pure modules, as `docs/architecture.md` lists them.
fn documented() -> (Vec<String>, Vec<String>) {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let block = text.split("```layers\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (mut layers, mut pure) = (Vec::new(), Vec::new());
    for line in block.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "pure" {
            pure.extend(value.split(", ").map(str::to_owned));
        } else {
            layers.push(name.to_owned());
        }
    }
    (layers, pure)
}

/// Whether the code contains the words as a whole, not as the beginning of a longer name.
fn names(code: &str, words: &str) -> bool {
    let is_whole =
        |at: usize| !code[at + words.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(words).any(|(at, _)| is_whole(at))
}

fn layer_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn imports_go_down_the_layers_only() {
    let (all, (layers, _)) = (sources(), documented());
    let depth = |file: &str| layers.iter().position(|layer| layer == layer_of(file));
    let mut wrong = Vec::new();
    for (file, targets) in imports(&all) {
        if ["lib.rs", "main.rs"].contains(&file) {
            continue;
        }
        assert!(depth(file).is_some(), "{file} is in no layer of docs/architecture.md");
        let up = targets.into_iter().filter(|target| depth(target) < depth(file));
        wrong.extend(up.map(|target| format!("{file} -> {target}")));
    }
    assert!(wrong.is_empty(), "imports that go up:\n{}", wrong.join("\n"));
}

/// The files that a file imports directly or indirectly.
fn all_imports<'a>(from: &'a str, imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(imports[file].iter().filter(|target| reached.insert(**target)));
    }
    reached
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let all = sources();
    let imports = imports(&all);
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|file| (*file, all_imports(file, &imports))).collect();
    let mut circles = Vec::new();
    for (file, targets) in &imports {
        let back = targets.iter().filter(|target| reached[**target].contains(file));
        circles.extend(back.map(|target| format!("{file} -> {target}")));
    }
    assert!(circles.is_empty(), "imports in circles:\n{}", circles.join("\n"));
}

#[test]
fn pure_modules_name_no_runtime_socket_or_clock() {
    let (all, (_, pure)) = (sources(), documented());
    let mut wrong = Vec::new();
    for module in &pure {
        let is_in = |file: &str| file == format!("{module}.rs") || file.starts_with(&format!("{module}/"));
        let files: Vec<_> = all.iter().filter(|(file, _)| is_in(file)).collect();
        assert!(!files.is_empty(), "docs/architecture.md calls {module} pure, which does not exist");
        for (file, source) in files {
            let impure = IMPURE.iter().filter(|word| names(&source.code, word));
            wrong.extend(impure.map(|word| format!("{file}: {word}")));
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

/// The modules of different protocols may use one word. Everywhere else, a type name has one definition.
#[test]
fn no_type_name_is_defined_twice() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, source) in sources() {
        let place = match file.strip_prefix("protocol/") {
            Some(rest) if rest.contains('/') => continue,
            _ => file,
        };
        for line in source.code.lines().filter(|line| !line.starts_with(' ')) {
            let mut words =
                line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            if words.by_ref().any(|word| ["struct", "enum", "trait", "type"].contains(&word))
                && let Some(name) = words.next()
            {
                defined.entry(name.to_owned()).or_default().push(place.clone());
            }
        }
    }
    defined.retain(|_, places| places.len() > 1);
    assert!(defined.is_empty(), "defined more than once: {defined:#?}");
}

#[test]
fn no_file_of_production_code_is_longer_than_450_lines() {
    let mut long = Vec::new();
    for folder in ["src", "hal/src", "operator/src", "tests/sim/src"] {
        for file in rust_files(&root().join(folder)).into_iter().filter(|file| !is_test(file)) {
            let text = fs::read_to_string(root().join(folder).join(&file)).unwrap();
            let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
            let lines = text[..end].lines().count();
            if lines > MAX_LINES {
                long.push(format!("{folder}/{}: {lines}", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}
