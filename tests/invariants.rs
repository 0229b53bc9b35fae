//! `docs/invariants.md` against the files: every invariant has a property that exists, and a removal that names it.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::{self, Visit};

/// How many invariants there are of each kind.
const KINDS: [(char, usize); 4] = [('R', 7), ('C', 9), ('A', 3), ('L', 7)];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of each row, by the invariant's name.
fn rows() -> BTreeMap<String, Vec<String>> {
    let document = read("docs/invariants.md");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows: Vec<Vec<String>> =
        document.lines().filter(|line| line.starts_with("| I-")).map(cells).collect();
    let count = rows.len();
    let by_name: BTreeMap<_, _> = rows.into_iter().map(|mut row| (row.remove(0), row)).collect();
    assert_eq!(by_name.len(), count, "an invariant stands twice");
    by_name
}

/// The functions inside the `proptest!` blocks of a file.
struct Properties(Vec<String>);

impl<'ast> Visit<'ast> for Properties {
    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        if mac.path.is_ident("proptest") {
            let tokens: Vec<String> = mac.tokens.clone().into_iter().map(|token| token.to_string()).collect();
            let names = tokens.windows(2).filter(|pair| pair[0] == "fn").map(|pair| pair[1].clone());
            self.0.extend(names);
        }
        visit::visit_macro(self, mac);
    }
}

#[test]
fn every_invariant_has_a_row() {
    let expected: Vec<String> = KINDS
        .into_iter()
        .flat_map(|(kind, count)| (1..=count).map(move |n| format!("I-{kind}{n}")))
        .collect();
    let rows = rows();
    for name in &expected {
        assert!(rows.contains_key(name), "{name} has no row");
    }
    assert_eq!(rows.len(), expected.len());
}

#[test]
fn every_property_is_one() {
    for (name, row) in rows() {
        let (file, function) = row[1].split_once('#').unwrap_or_else(|| panic!("{name}: {}", row[1]));
        let mut properties = Properties(Vec::new());
        properties.visit_file(&syn::parse_file(&read(file)).unwrap());
        assert!(properties.0.iter().any(|known| known == function), "{name}: {} is no property", row[1]);
    }
}

#[test]
fn every_removal_names_its_invariant() {
    for (name, row) in rows() {
        let patch = read(&format!("checks/removals/{}.patch", row[2]));
        let removes = patch.lines().next().unwrap();
        let named =
            removes.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == name);
        assert!(removes.starts_with("# Removes: ") && named, "{} does not name {name}: {removes}", row[2]);
    }
}
