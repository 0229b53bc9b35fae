//! `docs/states.md` against the code: each row names a method that exists on its state, leads to types its signature (or the
//! outcome enum in it) names, and every state of the code that waits or chooses has a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens as _;

struct Row {
    state: String,
    method: String,
    leads_to: Vec<String>,
    file: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/states.md")).unwrap();
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let plain = |cell: &str| cell.trim_matches('`').to_owned();
            Row {
                state: plain(cells[0]),
                method: plain(cells[1]),
                leads_to: cells[2].split(", ").map(plain).collect(),
                file: plain(cells[3]),
            }
        })
        .collect()
}

fn parse(path: &Path) -> syn::File {
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The files of a role, of its folders too.
fn role_files(role: &str) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![root().join("src").join(role)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The methods of the public states of one file: (type, method) and the words of the return type.
fn methods(file: &syn::File) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for item in &file.items {
        let syn::Item::Impl(block) = item else { continue };
        let owner = block.self_ty.to_token_stream().to_string();
        // A state that another one follows is generic over it.
        let owner = owner.split(" <").next().unwrap_or_default().to_owned();
        for item in &block.items {
            let syn::ImplItem::Fn(method) = item else { continue };
            if matches!(method.vis, syn::Visibility::Public(_)) {
                let output = method.sig.output.to_token_stream().to_string().replace("Self", &owner);
                found.insert((owner.clone(), method.sig.ident.to_string()), output);
            }
        }
    }
    found
}

/// The words inside the enums of a role, by the enum's name.
fn enums(role: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for path in role_files(role).into_iter().filter(|path| !path.ends_with("test_kit.rs")) {
        for item in parse(&path).items {
            if let syn::Item::Enum(item) = item {
                found.insert(item.ident.to_string(), item.variants.to_token_stream().to_string());
            }
        }
    }
    found
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned).collect()
}

#[test]
fn every_row_is_a_method_and_leads_where_its_signature_says() {
    for row in rows() {
        let role = row.file.split('/').nth(1).unwrap();
        let methods = methods(&parse(&root().join(&row.file)));
        let output = methods
            .get(&(row.state.clone(), row.method.clone()))
            .unwrap_or_else(|| panic!("{}: no public {}::{}", row.file, row.state, row.method));
        let enums = enums(role);
        let mut reachable = words(output);
        for word in reachable.clone() {
            reachable.extend(enums.get(&word).map(|variants| words(variants)).unwrap_or_default());
        }
        for state in &row.leads_to {
            assert!(
                reachable.contains(state),
                "{}::{} does not lead to {state}: {output}",
                row.state,
                row.method
            );
        }
    }
}

#[test]
fn every_state_of_the_code_has_a_row() {
    let rows = rows();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row.state.as_str()).collect();
    for role in ["client", "resource_server", "authorization_server"] {
        for path in role_files(role) {
            for item in parse(&path).items {
                let syn::Item::Struct(item) = item else { continue };
                let name = item.ident.to_string();
                let public = matches!(item.vis, syn::Visibility::Public(_));
                let is_state =
                    ["Awaiting", "Choosing", "Deciding"].iter().any(|start| name.starts_with(start));
                assert!(
                    !(public && is_state) || listed.contains(name.as_str()),
                    "docs/states.md has no row for {name}"
                );
            }
        }
    }
    assert!(rows.len() > 50, "the table was not read");
}
