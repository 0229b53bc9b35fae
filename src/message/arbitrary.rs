//! Values for property tests of messages.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::identifier::{Endpoint, ScopeSet};

use super::PageUri;
use super::error_code::{ErrorDetail, ErrorText};

/// A word that no test mistakes for anything else: what must not be shown.
pub(crate) const CANARY: &str = "canary-7Qe3zW9bLk2vXn5tRj8mPd4sHf6yGc1aUo0iKlZxTqV";

pub(crate) fn https_url() -> impl Strategy<Value = String> {
    ("[a-z]{1,8}", "[a-z]{2,5}", vec("[a-zA-Z0-9_~-]{1,6}", 0..3))
        .prop_map(|(host, top, path)| format!("https://{host}.{top}/{}", path.join("/")))
}

pub(crate) fn endpoint() -> impl Strategy<Value = Endpoint> {
    https_url().prop_map(|url| Endpoint::new(url).unwrap())
}

pub(crate) fn page() -> impl Strategy<Value = PageUri> {
    https_url().prop_map(|url| PageUri::new(url).unwrap())
}

/// Any text that is not empty, quotes, escapes and other scripts included.
pub(crate) fn text() -> impl Strategy<Value = String> {
    "\\PC{1,24}"
}

pub(crate) fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 1..4)
}

pub(crate) fn maybe_texts() -> impl Strategy<Value = Option<Vec<String>>> {
    option::of(vec(text(), 0..4))
}

pub(crate) fn scopes() -> impl Strategy<Value = ScopeSet> {
    vec("[!#-\\[\\]-~]{1,12}", 1..5).prop_map(|tokens| ScopeSet::parse(&tokens.join(" ")).unwrap())
}

pub(crate) fn detail() -> impl Strategy<Value = ErrorDetail> {
    (option::of("[ !#-\\[\\]-~]{1,40}"), option::of(page())).prop_map(|(text, uri)| ErrorDetail {
        description: text.and_then(|text| ErrorText::filtered(&text)),
        uri,
    })
}

pub(crate) fn utf8(bytes: &[u8]) -> String {
    core::str::from_utf8(bytes).unwrap().to_string()
}
