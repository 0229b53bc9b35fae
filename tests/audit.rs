//! `docs/audit.md` against the code: the core's dependency tree has its pinned size and each direct dependency a reason,
//! every proof type is listed and nothing else, and every file that is named exists.

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

#[test]
fn the_evidence_is_listed_and_nothing_else() {
    let source = std::fs::read_to_string(root().join("src/evidence.rs")).unwrap();
    let types: BTreeSet<String> = syn::parse_file(&source)
        .unwrap()
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Struct(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                Some(item.ident.to_string())
            }
            _ => None,
        })
        .collect();
    let audit = std::fs::read_to_string(root().join("docs/audit.md")).unwrap();
    let section = audit.split("## Evidence").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: BTreeSet<String> = section
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    assert_eq!(listed, types);
}

/// What an error of the core may print: our own words, numbers, and errors that print no more. A relaxation, which holds
/// a peer's identifier, is there to act on.
const PRINTED: [&str; 23] = [
    "InvalidIdentifier",
    "& 'static str",
    "u16",
    "usize",
    "Option < Duration >",
    "bool",
    "KnownCode",
    "Malformed",
    "PeerMisbehaved",
    "PeerIncompatible",
    "HostMisuse",
    "OutsideFailed",
    "ChallengeError",
    "FetchFailure",
    "EntropyUnavailable",
    "SealerFailed",
    "JsonError",
    "FormError",
    "IdTokenFault",
    "JwsError",
    "InvalidKeySet",
    "InvalidKey",
    "ImportFailed",
];

// I-P8: what cannot be in an error is in no log, on no terminal and on no page by way of one.
#[test]
fn no_error_of_the_client_can_print_a_peers_words() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for file in [
        "src/error.rs",
        "src/message/malformed.rs",
        "src/message/challenge.rs",
        "src/syntax/json.rs",
        "src/syntax/form.rs",
        "src/jose/compact.rs",
        "src/jose/jwk.rs",
        "src/jose/key.rs",
    ] {
        let source = std::fs::read_to_string(root().join(file)).unwrap();
        for item in syn::parse_file(&source).unwrap().items {
            let syn::Item::Enum(item) = item else { continue };
            let variants = item.variants.iter().filter_map(|variant| {
                let shown = variant.attrs.iter().find(|attribute| attribute.path().is_ident("error"))?;
                Some((variant, shown.meta.require_list().unwrap().tokens.to_string()))
            });
            for (variant, shown) in variants {
                seen += 1;
                for (at, field) in variant.fields.iter().enumerate() {
                    let of = quote::ToTokens::to_token_stream(&field.ty).to_string();
                    let name = field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string);
                    // A relaxation's name is ours; what it is scoped to is not.
                    let printed = shown.replace(&format!("{name} . name ()"), "").contains(&name);
                    if printed && !PRINTED.contains(&of.as_str()) {
                        faults.push(format!("{file}: {}::{} prints {of}", item.ident, variant.ident));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 60, "{seen} variants were read");
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let mut missing = Vec::new();
    for document in ["README.md", "docs/audit.md", "docs/design.md", "docs/states.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        let named = text.split('`').skip(1).step_by(2).filter(|word| {
            let first = word.split('/').next().unwrap_or_default();
            word.contains('/')
                && ["src", "tests", "runtime", "cli", "checks", "fuzz", "docs"].contains(&first)
                && !word.contains(['*', ' '])
        });
        missing.extend(
            named.filter(|path| !root().join(path).exists()).map(|path| format!("{document}: {path}")),
        );
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
