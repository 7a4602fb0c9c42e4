//! The structure of the crate: imports point down, from folder to folder and from file to file within one; files stay
//! small and say what they do; no two types have the same name; only `cli` uses clap.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the ground up; each may use those in the rows before its own.
const FLOORS: [&[&str]; 14] = [
    &["error", "clock", "counted", "stray"],
    &["json", "model", "net"],
    &["api", "flatten", "layout", "merge", "policy"],
    &["store"],
    &["files"],
    &["lake"],
    &["tables"],
    &["check", "compact", "export", "forget", "simulate", "status", "views"],
    &["verify"],
    &["reconcile", "report"],
    &["run"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// The files of each folder; each may use those before it. The folder's `mod.rs`, or the file of its name beside it,
/// may use them all.
const FILES: &[(&str, &[&str])] = &[
    ("json", &["objects", "lenient", "scan"]),
    (
        "model",
        &[
            "ids",
            "partition",
            "api_time",
            "time",
            "cursor",
            "page_size",
            "window",
            "table",
            "field_counts",
            "column_kind",
            "metadata_column",
            "row_policy",
            "columns",
            "range",
            "selector",
        ],
    ),
    ("net", &["hosts", "proxies", "trust", "cause"]),
    ("api", &["address", "key", "http", "retry", "pacer", "salvage", "page", "attempt", "client"]),
    ("flatten", &["scalar", "column", "metadata", "row", "fill", "conversation"]),
    ("merge", &["version", "gather", "kway"]),
    ("policy", &["digits", "mask", "redact", "field", "rules", "tree", "apply", "rows", "chain"]),
    (
        "store",
        &[
            "answers",
            "group_sync",
            "disk",
            "diagnose",
            "environment",
            "google",
            "http",
            "cloud",
            "calls",
            "limits",
            "parted",
            "conditional",
            "store",
            "address",
            "lock",
            "recorded",
            "remains",
            "upload",
            "probe",
        ],
    ),
    ("files", &["writer", "promote", "footer", "conform", "found", "lanes", "source", "reader", "sorted"]),
    (
        "lake",
        &[
            "write_intent",
            "manifest",
            "walk",
            "reconciliation",
            "state",
            "identity",
            "kept",
            "suppression",
            "lake",
            "series",
            "shards",
            "ledger",
            "history",
            "lease",
            "sweep",
            "report",
            "past_runs",
        ],
    ),
    ("lake/lease", &["ended", "record"]),
    ("tables", &["change", "delta", "no_delta", "open", "tables", "scan"]),
    ("tables/delta", &["log_cache", "log", "create", "commit", "vacuum", "cut"]),
    (
        "export",
        &[
            "plan",
            "progress",
            "fetch",
            "filter_support",
            "govern",
            "bad_record",
            "inspect",
            "last_page",
            "look",
            "sieve",
            "collect",
            "encode",
            "stage",
            "walks",
        ],
    ),
    ("compact", &["job", "inputs", "late", "date", "work", "record", "publish", "remove"]),
    ("forget", &["mentions", "receipt", "search", "traces"]),
    ("views", &["place", "latest", "text", "duckdb", "spark", "athena", "bigquery", "snowflake"]),
    ("simulate", &["world", "render", "edits", "export", "settings", "server"]),
    ("verify", &["problems", "beside", "rows", "ids", "date", "forgotten", "manifest", "staging"]),
    ("status", &["status", "health", "recent", "watch"]),
    ("report", &["figure", "range", "rows", "tally", "tags", "support", "operations", "read", "html"]),
    ("reconcile", &["hashes", "here", "survey", "second_look"]),
    ("run", &["settings", "session", "prune", "cover", "repair", "fetch", "forget", "upgrade", "reconcile"]),
    (
        "cli",
        &[
            "args",
            "shutdown",
            "logging",
            "output",
            "receipts",
            "policy",
            "progress",
            "generate",
            "examples",
            "metrics",
            "settings",
            "summary",
            "screen",
            "runs",
            "following",
            "report",
            "commands",
            "demo",
            "entry",
        ],
    ),
    (
        "cli/args",
        &[
            "heading",
            "choice",
            "value",
            "place",
            "store",
            "lake",
            "api",
            "policy",
            "retention",
            "compact",
            "export",
            "forget",
            "reconcile",
            "inspect",
            "report",
            "simulate",
            "cli",
        ],
    ),
];

/// A module's path from the crate's root: `["lake", "lease", "record"]`; empty for the root itself.
type Module = Vec<String>;

fn sources() -> BTreeMap<Module, (PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let module = |path: &PathBuf| {
        let inside = path.strip_prefix(&root).unwrap().with_extension("");
        let mut parts: Module = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        parts.pop_if(|last| last == "mod");
        parts
    };
    found.into_iter().map(|path| (module(&path), (path.clone(), fs::read_to_string(&path).unwrap()))).collect()
}

/// Whether a module belongs to tests, which may use every module.
fn is_of_tests(module: &Module) -> bool {
    module.iter().any(|part| part == "tests" || part == "shelf" || part == "samples")
}

/// The code of a file, without its tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate::`, `super::` or `self::`, `use` trees taken apart.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            // A visibility is no import.
            let visibility = code[..at].ends_with("(in ");
            if !visibility && before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                expand(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one `use` tree, or one path, at the start of `text`; returns how much of it that was.
fn expand(text: &str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = before.len();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            loop {
                at += expand(&text[at..], before, found);
                at += text[at..].len() - text[at..].trim_start().len();
                if text[at..].starts_with(',') {
                    at += 1;
                    at += text[at..].len() - text[at..].trim_start().len();
                }
                if text[at..].starts_with('}') {
                    at += 1;
                    break;
                }
                if at >= text.len() || !text[at..].starts_with(|c: char| c.is_alphanumeric() || "_*{".contains(c)) {
                    break;
                }
            }
            break;
        }
        let name: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
        at += name.len();
        before.push(name);
        if text[at..].starts_with("::") {
            at += 2;
            if text[at..].starts_with('<') {
                found.push(before.clone());
                break;
            }
        } else {
            if let Some(rest) = text[at..].strip_prefix(" as ") {
                at += 4 + rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
            }
            found.push(before.clone());
            break;
        }
    }
    before.truncate(depth);
    at
}

/// The module that a path in `own` leads to, as far as there are files.
fn target(own: &Module, path: &[String], modules: &BTreeSet<&Module>) -> Option<Module> {
    let mut full = if path.first()? == "crate" { Module::new() } else { own.clone() };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(full.pop()),
            part => full.push(part.to_owned()),
        }
    }
    while !full.is_empty() && !modules.contains(&full) {
        full.pop();
    }
    Some(full)
}

fn position(list: &[&str], name: &str, of: &str) -> usize {
    list.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{of}/{name} has no place in the order"))
}

/// The fault of an import; `None` if it points down.
fn fault(own: &Module, other: &Module) -> Option<String> {
    let shared = own.iter().zip(other).take_while(|(one, two)| one == two).count();
    if shared == own.len() {
        // A module may use what is inside it.
        return None;
    }
    if shared == other.len() {
        // The root has nothing but modules.
        return (!other.is_empty()).then(|| format!("{} uses its parent", own.join("/")));
    }
    let (one, two) = (&own[shared], &other[shared]);
    let is_up = if shared == 0 {
        let floor = |name: &str| {
            let found = FLOORS.iter().position(|floor| floor.contains(&name));
            found.unwrap_or_else(|| panic!("{name} is on no floor"))
        };
        floor(one) <= floor(two)
    } else {
        let folder = own[..shared].join("/");
        let (_, files) =
            FILES.iter().find(|(name, _)| *name == folder).unwrap_or_else(|| panic!("no order of {folder}"));
        position(files, one, &folder) <= position(files, two, &folder)
    };
    is_up.then(|| format!("{} uses {}", own.join("/"), other.join("/")))
}

#[test]
fn imports_point_one_way() {
    let sources = sources();
    let modules: BTreeSet<&Module> = sources.keys().collect();
    let (mut seen, mut faults) = (0, BTreeSet::new());
    for (own, (_, text)) in sources.iter().filter(|(own, _)| !is_of_tests(own)) {
        for path in paths(&code(text)) {
            let Some(other) = target(own, &path, &modules).filter(|other| !is_of_tests(other)) else { continue };
            seen += 1;
            faults.extend(fault(own, &other));
        }
    }
    assert!(seen > 500, "{seen} imports were found");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_file_has_its_place() {
    let sources = sources();
    for (module, _) in sources.iter().filter(|(module, _)| module.len() > 1 && !is_of_tests(module)) {
        let (name, folder) = module.split_last().unwrap();
        let folder = folder.join("/");
        let (_, files) =
            FILES.iter().find(|(known, _)| *known == folder).unwrap_or_else(|| panic!("no order of {folder}"));
        position(files, name, &folder);
    }
    for (folder, files) in FILES {
        for file in *files {
            let module = folder.split('/').chain([*file]).map(str::to_owned).collect::<Module>();
            assert!(sources.contains_key(&module), "{folder}/{file} is gone");
        }
    }
}

#[test]
fn every_file_is_small_and_has_a_short_header() {
    for (path, text) in sources().into_values() {
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!((1..=HEADER_LINES).contains(&header), "{} has a header of {header} lines", path.display());
        let lines = text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

/// The longest header that a file may have, in lines.
const HEADER_LINES: usize = 12;

#[test]
fn clap_stays_in_cli() {
    for (module, (path, text)) in sources() {
        assert!(
            module[..].first().is_some_and(|top| top == "cli") || !code(&text).contains("clap"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_name_means_one_type() {
    let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, text) in sources().into_values() {
        for declared in types(&text) {
            if let Some(other) = known.insert(declared.clone(), path.clone()) {
                panic!("{declared} is declared in {} and in {}", other.display(), path.display());
            }
        }
    }
    assert!(known.len() > 150, "{} types were found", known.len());
}

/// The structs, enums and traits that a file declares.
fn types(text: &str) -> Vec<String> {
    let declared = |line: &str| {
        let words: Vec<_> = line.split_whitespace().skip_while(|word| word.starts_with("pub")).collect();
        let (kind, name) = (words.first()?, words.get(1)?);
        let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
        (["struct", "enum", "trait"].contains(kind) && !name.is_empty()).then_some(name)
    };
    let outside = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(outside).filter_map(declared).collect()
}
