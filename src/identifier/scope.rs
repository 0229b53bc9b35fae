//! Scopes and sets of them (OAuth 2.1 section 1.4.1, appendix A).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{fmt, slice};

use super::{IdentifierFault, InvalidIdentifier, identifier};
use crate::limits;

identifier!(
    /// One scope token: case-sensitive, without spaces, quotes and backslashes.
    Scope
);

impl Scope {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] when it is empty, too long or outside `%x21 / %x23-5B / %x5D-7E`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        if !Self::is_token(text) {
            return Err(InvalidIdentifier::new("scope", IdentifierFault::Grammar));
        }
        Ok(Self(text.into()))
    }

    fn is_token(text: &str) -> bool {
        // OAUTH21-A-1, OAUTH21-A-2
        let allowed = text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        !text.is_empty() && text.len() <= limits::SCOPE_BYTES && allowed
    }
}

/// A set of scopes. Order and repetition on the wire mean nothing.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeSet {
    /// Each once, in order of bytes, shared by the clones of the set; none where there is no scope.
    scopes: Option<Arc<[Scope]>>,
}

impl ScopeSet {
    /// No scope.
    pub const fn new() -> Self {
        Self { scopes: None }
    }

    /// Reads tokens separated by single spaces. An empty text is no set: an absent parameter is.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for an empty text, two spaces in a row, a malformed token or too many.
    pub fn parse(text: &str) -> Result<Self, InvalidIdentifier> {
        // OAUTH21-A-1. D36: repetitions count, so that a text of a few kilobytes is not taken apart for each of its tokens.
        if !Self::is_text(text) {
            return Err(InvalidIdentifier::new("scope", IdentifierFault::Grammar));
        }
        text.split(' ').map(Scope::new).collect()
    }

    /// Whether these are scope tokens, and not too many.
    pub(crate) fn is_set<'t>(tokens: impl Iterator<Item = &'t str>) -> bool {
        // D36: repetitions count, so that a text of a few kilobytes is not walked for each of its tokens.
        let mut count = 0_usize;
        tokens.into_iter().all(|token| {
            count = count.saturating_add(1);
            count <= limits::SCOPES && Scope::is_token(token)
        })
    }

    /// What [`ScopeSet::parse`] would take, without taking it: scope tokens with single spaces between them.
    pub(crate) fn is_text(text: &str) -> bool {
        let (mut count, mut length) = (1_usize, 0_usize);
        for byte in text.bytes() {
            match byte {
                b' ' if length > 0 => (count, length) = (count.saturating_add(1), 0),
                0x21 | 0x23..=0x5b | 0x5d..=0x7e if length < limits::SCOPE_BYTES => {
                    length = length.saturating_add(1);
                }
                _ => return false,
            }
        }
        length > 0 && count <= limits::SCOPES
    }

    /// Those of this set that a scope parameter names; what else it names is left out.
    ///
    /// # Errors
    /// As [`ScopeSet::parse`].
    pub(crate) fn named_in(&self, text: &str) -> Result<Self, InvalidIdentifier> {
        if !Self::is_text(text) {
            return Err(InvalidIdentifier::new("scope", IdentifierFault::Grammar));
        }
        let own = self.as_slice();
        let find = |token| own.binary_search_by(|known| known.as_str().cmp(token)).ok();
        let named = text.split(' ').filter_map(find);
        // Each once: a repetition names nothing new.
        let mut found: Vec<usize> = Vec::with_capacity(own.len());
        for index in named {
            if let Err(place) = found.binary_search(&index) {
                found.insert(place, index);
            }
        }
        if found.len() == own.len() {
            return Ok(self.clone());
        }
        Ok(found.into_iter().filter_map(|index| own.get(index)).cloned().collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether one is among them.
    pub fn contains(&self, scope: &Scope) -> bool {
        self.as_slice().binary_search(scope).is_ok()
    }

    /// Whether one of that text is among them.
    pub fn contains_str(&self, scope: &str) -> bool {
        self.iter().any(|known| known.as_str() == scope)
    }

    /// Adds one.
    pub fn insert(&mut self, scope: Scope) {
        if !self.contains(&scope) {
            *self = self.iter().cloned().chain([scope]).collect();
        }
    }

    /// Those of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if self.is_subset_of(other) {
            return other.clone();
        }
        self.iter().chain(other).cloned().collect()
    }

    /// Those of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        if self.is_subset_of(other) {
            return self.clone();
        }
        self.iter().filter(|scope| other.contains(scope)).cloned().collect()
    }

    /// Those of this set that the other lacks.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|scope| !other.contains(scope)).cloned().collect()
    }

    /// Whether the other has all of these.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|scope| other.contains(scope))
    }

    /// All of them, in order of bytes.
    pub fn iter(&self) -> slice::Iter<'_, Scope> {
        self.as_slice().iter()
    }

    fn as_slice(&self) -> &[Scope] {
        self.scopes.as_deref().unwrap_or_default()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut scopes: Vec<Scope> = scopes.into_iter().collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self { scopes: (!scopes.is_empty()).then(|| scopes.into()) }
    }
}

impl<'s> IntoIterator for &'s ScopeSet {
    type Item = &'s Scope;
    type IntoIter = slice::Iter<'s, Scope>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::{Scope, ScopeSet};

    // OAUTH21-A-1
    #[test]
    fn malformed_sets_are_refused() {
        for text in ["", " ", "a ", " a", "a  b", "a\tb", "a\"", "a\\", "a\u{7f}", "ä", "a\n"] {
            assert!(ScopeSet::parse(text).is_err(), "{text:?}");
        }
        let many: std::string::String = (0..200).map(|n| std::format!("s{n} ")).collect();
        assert!(ScopeSet::parse(many.trim_end()).is_err());
        assert!(Scope::new("a b").is_err());
        assert!(Scope::new("a".repeat(crate::limits::SCOPE_BYTES)).is_ok());
        assert!(Scope::new("a".repeat(crate::limits::SCOPE_BYTES + 1)).is_err());
    }

    // D36: the same bounds in place; a scope that is said again counts again.
    #[test]
    fn a_set_checked_in_place_is_bounded() {
        let text = |count: usize| ["a "].repeat(count).concat().trim_end().to_string();
        for (count, taken) in [(1, true), (crate::limits::SCOPES, true), (crate::limits::SCOPES + 1, false)] {
            assert_eq!(ScopeSet::is_text(&text(count)), taken, "{count}");
            assert_eq!(ScopeSet::is_set(text(count).split(' ')), taken, "{count}");
        }
        for (length, taken) in [(crate::limits::SCOPE_BYTES, true), (crate::limits::SCOPE_BYTES + 1, false)] {
            assert_eq!(ScopeSet::is_text(&"a".repeat(length)), taken, "{length}");
            assert_eq!(ScopeSet::is_set(["a".repeat(length).as_str()].into_iter()), taken, "{length}");
        }
    }

    // OAUTH21-A-2
    #[test]
    fn order_means_nothing_and_case_does() {
        assert_eq!(ScopeSet::parse("b a b"), ScopeSet::parse("a b"));
        assert_ne!(ScopeSet::parse("a"), ScopeSet::parse("A"));
        let (ab, bc) = (ScopeSet::parse("a b").unwrap(), ScopeSet::parse("b c").unwrap());
        assert_eq!(ab.union(&bc).to_string(), "a b c");
        assert_eq!(ab.difference(&bc).to_string(), "a");
        assert_eq!(ab.intersection(&bc).to_string(), "b");
        assert!(!ab.is_subset_of(&bc) && ScopeSet::new().is_subset_of(&ab));
    }

    proptest! {
        #[test]
        fn what_is_checked_in_place_is_what_is_parsed(text in "[a-c!\"\\\\ ]{0,12}") {
            prop_assert_eq!(ScopeSet::is_text(&text), ScopeSet::parse(&text).is_ok());
            prop_assert_eq!(ScopeSet::is_set(text.split(' ')), ScopeSet::parse(&text).is_ok());
        }

        #[test]
        fn sets_are_those_of_mathematics(
            one in proptest::collection::btree_set("[a-e]", 0..6), two in proptest::collection::btree_set("[a-e]", 0..6),
            added in "[a-e]",
        ) {
            let set = |tokens: &BTreeSet<String>| -> ScopeSet {
                // Backwards, and each twice.
                tokens.iter().rev().chain(tokens).map(|token| Scope::new(token).unwrap()).collect()
            };
            let (a, b) = (set(&one), set(&two));
            prop_assert_eq!(a.union(&b), set(&(&one | &two)));
            prop_assert_eq!(a.intersection(&b), set(&(&one & &two)));
            prop_assert_eq!(a.difference(&b), set(&(&one - &two)));
            prop_assert_eq!(a.is_subset_of(&b), one.is_subset(&two));
            prop_assert_eq!(a == b, one == two);
            prop_assert_eq!(a.cmp(&b), one.cmp(&two));
            prop_assert_eq!((a.len(), a.is_empty()), (one.len(), one.is_empty()));
            prop_assert_eq!(a.contains(&Scope::new(&added).unwrap()), one.contains(&added));
            let (mut more, mut model) = (a.clone(), one.clone());
            more.insert(Scope::new(&added).unwrap());
            model.insert(added);
            prop_assert_eq!(more, set(&model));
            prop_assert_eq!(a, set(&one), "the clone shares nothing that changes");
        }

        #[test]
        fn what_is_shown_is_read_back(tokens in proptest::collection::vec("[!#-\\[\\]-~]{1,12}", 1..12)) {
            let set: ScopeSet = tokens.iter().map(|token| Scope::new(token.as_str()).unwrap()).collect();
            prop_assert_eq!(ScopeSet::parse(&set.to_string()), Ok(set));
        }
    }
}
