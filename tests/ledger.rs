//! The ledger of requirements (`docs/requirements.toml`) against the code: every row that names code names a
//! function that exists and cites the row's id, and names a test that exists; every id cited in the code is a
//! row of the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use syn::spanned::Spanned as _;
use syn::visit::Visit;

#[derive(Deserialize)]
struct Ledger {
    requirement: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    level: String,
    role: String,
    tier: String,
    area: String,
    source: String,
    text: String,
    note: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    conformance: Vec<String>,
    /// `path#function`, functions that enforce the row and cite its id.
    #[serde(default)]
    code: Vec<String>,
    /// `path#test`, tests that fail without them.
    #[serde(default)]
    test: Vec<String>,
    /// Why a row has no code, where that is on purpose.
    exception: Option<String>,
}

/// A function of one file: its name, its lines with the comments above it, and whether it is a test.
struct Function {
    name: String,
    text: String,
    is_test: bool,
}

struct Functions<'a> {
    lines: Vec<&'a str>,
    found: Vec<Function>,
}

impl Functions<'_> {
    fn record(&mut self, name: &syn::Ident, attrs: &[syn::Attribute], span: proc_macro2::Span) {
        let mut first = attrs.iter().map(|a| a.span().start().line).fold(span.start().line, usize::min);
        while first > 1 && self.lines[first - 2].trim_start().starts_with("//") {
            first -= 1;
        }
        let text = self.lines[first - 1..span.end().line].join("\n");
        let is_test = attrs.iter().any(|a| a.path().segments.last().is_some_and(|s| s.ident == "test"));
        self.found.push(Function { name: name.to_string(), text, is_test });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.record(&item.sig.ident, &item.attrs, item.span());
        syn::visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.record(&item.sig.ident, &item.attrs, item.span());
        syn::visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.record(&item.sig.ident, &item.attrs, item.span());
        syn::visit::visit_trait_item_fn(self, item);
    }
    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        // Macros hide functions from the parser: `proptest! { … }` wraps tests whose arguments are strategies,
        // and a macro of ours may define methods. Their names, and the text up to the next one, are read by line.
        let (start, end) = (mac.span().start().line, mac.span().end().line);
        let mut attributes_say_test = false;
        for line in start..=end {
            let text = self.lines[line - 1].trim();
            if text.starts_with("#[test]") {
                attributes_say_test = true;
            } else if let Some(rest) = text.strip_prefix("pub fn ").or_else(|| text.strip_prefix("fn ")) {
                let name = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let text = self.lines[line - 1..end].join("\n");
                self.found.push(Function { name, text, is_test: attributes_say_test });
                attributes_say_test = false;
            }
        }
        syn::visit::visit_macro(self, mac);
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(below: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "corpus" && name != "compile_fail" {
            rust_files(&path, into);
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// Every function of the tree by file, path relative to the root.
fn functions() -> BTreeMap<String, Vec<Function>> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "runtime", "cli", "fuzz", "checks"] {
        rust_files(&root().join(folder), &mut files);
    }
    files
        .into_iter()
        .map(|file| {
            let source = fs::read_to_string(&file).unwrap();
            let parsed = syn::parse_file(&source).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let mut functions = Functions { lines: source.lines().collect(), found: Vec::new() };
            functions.visit_file(&parsed);
            (relative(&file), functions.found)
        })
        .collect()
}

fn ledger() -> Ledger {
    let text = fs::read_to_string(root().join("docs/requirements.toml")).unwrap();
    toml::from_str(&text).unwrap_or_else(|error| panic!("docs/requirements.toml: {}", error.message()))
}

/// Whether the text cites the id as a whole word: `RFC9207-2.4-2` is not cited by `RFC9207-2.4-21`.
fn cites(text: &str, id: &str) -> bool {
    let part_of_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.match_indices(id).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let mut after = text[at + id.len()..].chars();
        let next = after.next();
        let beyond = after.next();
        let continues_before = before.is_some_and(|c| part_of_id(c) || c == '.');
        let continues_after = next.is_some_and(part_of_id)
            || (next == Some('.') && beyond.is_some_and(|c| c.is_ascii_alphanumeric()));
        !(continues_before || continues_after)
    })
}

fn named<'a>(
    functions: &'a BTreeMap<String, Vec<Function>>,
    reference: &str,
) -> Result<Vec<&'a Function>, String> {
    let (path, name) = reference.split_once('#').ok_or(format!("{reference}: not path#function"))?;
    let file = functions.get(path).ok_or(format!("{reference}: no such file"))?;
    let found: Vec<_> = file.iter().filter(|f| f.name == name).collect();
    if found.is_empty() { Err(format!("{reference}: no such function")) } else { Ok(found) }
}

/// Rows of the tables in `docs/vulnerabilities.md`: case, class, answer and test.
fn vulnerabilities() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/vulnerabilities.md")).unwrap();
    text.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| case |"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn each_vulnerability_has_an_answer_and_a_test_that_exists() {
    let functions = functions();
    let mut faults = Vec::new();
    let rows = vulnerabilities();
    assert!(rows.len() > 30, "docs/vulnerabilities.md has lost its tables");
    for row in &rows {
        let [case, class, answer, tests] = row.as_slice() else {
            faults.push(format!("{row:?}: not case, class, answer and test"));
            continue;
        };
        if [case, class, answer].into_iter().any(|cell| cell.is_empty()) {
            faults.push(format!("{case}: an empty cell"));
        }
        let references: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        if references.is_empty() {
            faults.push(format!("{case}: no test"));
        }
        for reference in references {
            match named(&functions, reference) {
                Err(fault) => faults.push(format!("{case}: test {fault}")),
                Ok(found) if !found.iter().any(|function| function.is_test) => {
                    faults.push(format!("{case}: {reference} is no test"));
                }
                Ok(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn each_row_names_code_that_cites_it_and_a_test_that_exists() {
    let functions = functions();
    let mut faults = Vec::new();
    for row in &ledger().requirement {
        for reference in &row.code {
            match named(&functions, reference) {
                Err(fault) => faults.push(format!("{}: code {fault}", row.id)),
                Ok(found) => {
                    let cited = found.iter().any(|f| {
                        cites(&f.text, &row.id) || row.aliases.iter().any(|alias| cites(&f.text, alias))
                    });
                    if !cited {
                        faults.push(format!("{}: {reference} does not cite the id", row.id));
                    }
                }
            }
        }
        for reference in &row.test {
            match named(&functions, reference) {
                Err(fault) => faults.push(format!("{}: test {fault}", row.id)),
                Ok(found) if !found.iter().any(|f| f.is_test) => {
                    faults.push(format!("{}: {reference} is no test", row.id));
                }
                Ok(_) => {}
            }
        }
        if row.code.is_empty() != row.test.is_empty() {
            faults.push(format!("{}: names code without a test, or a test without code", row.id));
        }
        if row.exception.as_ref().is_some_and(|why| why.trim().is_empty() || !row.code.is_empty()) {
            faults.push(format!("{}: an exception needs a reason and excludes code", row.id));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn ids_and_aliases_are_unique_and_words_are_known() {
    let mut seen = BTreeSet::new();
    for row in &ledger().requirement {
        for id in std::iter::once(&row.id).chain(&row.aliases) {
            assert!(seen.insert(id.clone()), "{id} stands twice");
        }
        let known = |words: &[&str], word: &str| assert!(words.contains(&word), "{}: {word}", row.id);
        known(&["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"], &row.level);
        known(&["client", "rs", "as"], &row.role);
        known(&["core", "extension", "beyond", "legacy", "deployment"], &row.tier);
        for text in [&row.area, &row.source, &row.text] {
            assert!(!text.trim().is_empty(), "{}", row.id);
        }
        assert!(row.note.as_ref().is_none_or(|note| !note.is_empty()), "{}", row.id);
        assert!(row.conformance.iter().all(|check| !check.is_empty()), "{}", row.id);
    }
}

#[test]
fn an_id_is_cited_only_as_a_whole_word() {
    assert!(cites("// RFC9207-2.4-2: exact", "RFC9207-2.4-2"));
    assert!(cites("// see (RFC9207-2.4-2).", "RFC9207-2.4-2"));
    assert!(!cites("// RFC9207-2.4-21", "RFC9207-2.4-2"));
    assert!(!cites("// RFC9207-2.4-2.1", "RFC9207-2.4-2"));
    assert!(!cites("// XRFC9207-2.4-2", "RFC9207-2.4-2"));
}

#[test]
fn every_id_cited_in_the_code_is_a_row() {
    let known: BTreeSet<String> =
        ledger().requirement.into_iter().flat_map(|row| std::iter::once(row.id).chain(row.aliases)).collect();
    let prefixes: BTreeSet<&str> = known.iter().filter_map(|id| id.split('-').next()).collect();
    let mut files = Vec::new();
    for folder in ["src", "runtime/src", "cli/src"] {
        rust_files(&root().join(folder), &mut files);
    }
    let mut unknown = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for comment in source.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment)) {
            for word in comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.')) {
                let word = word.trim_end_matches(['.', '-']);
                let parts: Vec<_> = word.split('-').collect();
                let looks_like_an_id = parts.len() >= 3
                    && prefixes.contains(parts[0])
                    && parts.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
                if looks_like_an_id && !known.contains(word) {
                    unknown.insert(format!("{}: {word}", relative(&file)));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "cited, but no row:\n{}", unknown.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn coverage_per_role_and_level() {
    let mut counts: BTreeMap<(String, String, String), (usize, usize, usize)> = BTreeMap::new();
    for row in ledger().requirement {
        let count = counts.entry((row.tier, row.role, row.level)).or_default();
        count.0 += usize::from(!row.code.is_empty());
        count.1 += usize::from(row.exception.is_some());
        count.2 += 1;
    }
    println!("{:<12} {:<8} {:<12} {:>5} {:>9} {:>5}", "tier", "role", "level", "code", "exception", "rows");
    for ((tier, role, level), (done, excepted, rows)) in &counts {
        println!("{tier:<12} {role:<8} {level:<12} {done:>5} {excepted:>9} {rows:>5}");
        assert!(done + excepted <= *rows);
    }
    for role in ["client", "rs", "as"] {
        let with_code: usize = counts
            .iter()
            .filter(|((tier, of, level), _)| tier == "core" && of == role && level.starts_with("MUST"))
            .map(|(_, count)| count.0)
            .sum();
        assert!(with_code > 0, "{role}: no core MUST has code");
    }
}
