//! The core's dependency tree is part of what a reviewer reads: its size is pinned and each direct dependency
//! has a reason in `docs/audit.md`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Packages below the core, itself included. Raise it only with a row in `docs/audit.md`.
const PACKAGES: usize = 59;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_tree_of_the_core_has_the_pinned_size() {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--edges", "normal", "--package", "mcp-authz", "--prefix", "none", "--no-dedupe"])
        .args(["--locked", "--format", "{p}"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(packages.len() <= 60, "{packages:#?}");
    assert_eq!(packages.len(), PACKAGES, "{packages:#?}");
}

#[test]
fn each_direct_dependency_has_a_reason() {
    let manifest: toml::Table =
        toml::from_str(&std::fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    let audit = std::fs::read_to_string(root().join("docs/audit.md")).unwrap();
    for name in manifest["dependencies"].as_table().unwrap().keys() {
        let row = audit.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(row.is_some_and(|row| row.len() > name.len() + 20), "docs/audit.md has no reason for {name}");
    }
}
