//! Replays every file of `fuzz/corpus`, seeds and past findings, through the oracle of its target, on stable.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use mcp_authz_fuzz_oracles::ORACLES;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stems(directory: &str) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries(&fuzz().join(directory)).into_iter().map(stem).collect()
}

fn oracles() -> BTreeSet<String> {
    ORACLES.iter().map(|(name, _)| (*name).to_owned()).collect()
}

#[test]
fn every_corpus_file_holds() {
    for (name, oracle) in ORACLES {
        let seeds = entries(&fuzz().join("corpus").join(name));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            let data = fs::read(&seed).unwrap();
            assert!(panic::catch_unwind(|| oracle(&data)).is_ok(), "{name} fails on {}", seed.display());
        }
    }
}

#[test]
fn every_corpus_directory_has_an_oracle() {
    assert_eq!(stems("corpus"), oracles());
}

#[test]
fn every_oracle_has_a_fuzz_target_and_every_target_an_oracle() {
    assert_eq!(stems("fuzz_targets"), oracles());
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (name, _) in ORACLES {
        let source = fs::read_to_string(fuzz().join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(source.contains(&format!("mcp_authz_fuzz_oracles::{name}(")), "{name} calls another oracle");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
    }
}

#[test]
fn oracle_names_are_unique() {
    assert_eq!(oracles().len(), ORACLES.len());
}
