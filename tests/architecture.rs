//! The house: imports point one way, and files stay small enough to be one thing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in the order in which data flows; each may use those in the rows before its own.
const ORDER: [&[&str]; 11] = [
    &["error", "clock", "stray"],
    &["json", "model", "net"],
    &["api", "flatten", "layout", "merge"],
    &["store"],
    &["files"],
    &["lake"],
    &["tables"],
    &["check", "compact", "export", "simulate", "status", "views"],
    &["verify"],
    &["cli"],
    &["main"],
];

fn sources() -> Vec<PathBuf> {
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
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_point_one_way() {
    let rank: BTreeMap<&str, usize> =
        ORDER.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank))).collect();
    let mut seen = 0;
    for path in sources() {
        let own = module(&path);
        // Tests may make their rows with whatever makes rows.
        if own == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        let own_rank = rank.get(own.as_str()).unwrap_or_else(|| panic!("{own} has no place in the order"));
        let text = fs::read_to_string(&path).unwrap();
        for reference in text.split("crate::").skip(1) {
            let name: String = reference.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(other_rank) = rank.get(name.as_str()) else { continue };
            seen += 1;
            assert!(name == own || other_rank < own_rank, "{}: {own} uses {name}", path.display());
        }
    }
    assert!(seen > 50, "the imports were found");
}

#[test]
fn every_file_says_what_it_is_and_is_one_thing() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with what it does", path.display());
        let lines = text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}
