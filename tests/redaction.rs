//! No secret is shown by a type of the core (I-G7).
//!
//! `Debug` is derived or written by hand. A derived one shows what the types of its fields show, so that it is enough to
//! look at where text becomes a secret and at what is written by hand: no type with bare secret text derives it, and every
//! public type that can hold a secret and has one of its own is formatted here with a canary inside. Nothing has serde
//! output but JSON values, which their owner writes on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mcp_authz::authorization_server::grace::{GraceKey, RefreshGrace};
use mcp_authz::authorization_server::record::PushedRecord;
use mcp_authz::jose::{JwtBuffer, UnverifiedJwt};
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::error_code::{ErrorDetail, ErrorText, TokenErrorCode};
use mcp_authz::message::exchange::{Reply, RequestHead};
use mcp_authz::secret::{
    AccessToken, AuthorizationCode, ClientSecret, CodeVerifier, IdToken, Nonce, RefreshToken,
    RegistrationToken, SecretBytes, SecretDigest, State, SubmittedToken,
};
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::flat::FlatObject;
use mcp_authz::syntax::form::Form;
use mcp_authz::syntax::json::{JsonObject, ObjectWriter};
use mcp_authz::time::Duration;
use quote::ToTokens as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, Item, Visibility};

#[derive(Default)]
struct Type {
    is_public: bool,
    /// The names in the types of its fields.
    names: BTreeSet<String>,
    derives: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

/// The types of the core by name; those that share a name are taken for one that is all of them.
#[derive(Default)]
struct Core {
    types: BTreeMap<String, Type>,
    /// The traits that are implemented by hand, by the name of the type.
    by_hand: BTreeMap<String, BTreeSet<String>>,
    /// The types whose own `Debug` says nothing of the value.
    constant: BTreeSet<String>,
    /// The kinds that `secret!` makes.
    secrets: BTreeSet<String>,
    file: PathBuf,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.to_token_stream().to_string().contains("test")
    })
}

fn names(tokens: impl quote::ToTokens) -> BTreeSet<String> {
    let text = tokens.to_token_stream().to_string();
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Core {
    fn add(
        &mut self,
        name: String,
        visibility: &Visibility,
        attributes: &[Attribute],
        fields: BTreeSet<String>,
    ) {
        let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
        let known = self.types.entry(name).or_default();
        known.is_public |= matches!(visibility, Visibility::Public(_));
        known.names.extend(fields);
        known.derives.extend(derives.flat_map(names));
        known.files.insert(self.file.clone());
    }
}

impl<'ast> Visit<'ast> for Core {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(item) if is_test(&item.attrs) => return,
            Item::Struct(item) => {
                let fields: Vec<_> = item.fields.iter().map(|field| &field.ty).collect();
                self.add(
                    item.ident.to_string(),
                    &item.vis,
                    &item.attrs,
                    fields.into_iter().flat_map(names).collect(),
                );
            }
            Item::Enum(item) => {
                let fields = item.variants.iter().flat_map(|variant| match &variant.fields {
                    Fields::Unit => Vec::new(),
                    fields => fields.iter().map(|field| &field.ty).collect(),
                });
                self.add(item.ident.to_string(), &item.vis, &item.attrs, fields.flat_map(names).collect());
            }
            Item::Impl(item) => {
                let of = |path: &syn::Path| path.segments.last().map(|segment| segment.ident.to_string());
                if let (Some((path, _)), syn::Type::Path(own)) = (&item.trait_, &*item.self_ty)
                    && let (Some(name), Some(own)) = (of(path), of(&own.path))
                {
                    let bodies = item.items.iter().map(|item| match item {
                        syn::ImplItem::Fn(function) => names(&function.block),
                        _ => BTreeSet::new(),
                    });
                    if name == "Debug" && !bodies.flatten().any(|word| word == "self") {
                        self.constant.insert(own.clone());
                    }
                    self.by_hand.entry(own).or_default().insert(name);
                }
            }
            Item::Macro(item) if item.mac.path.is_ident("secret") => {
                let words: Vec<String> =
                    item.mac.tokens.clone().into_iter().map(|token| token.to_string()).collect();
                self.secrets.extend(words.iter().find(|word| word.starts_with(char::is_uppercase)).cloned());
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.file_stem().is_some_and(|stem| {
                ["tests", "test_kit", "toy", "arbitrary"].iter().any(|known| stem == *known)
            })
        {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn core() -> Core {
    let root = root();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut core = Core::default();
    for file in files {
        let source = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
        core.file = file.strip_prefix(&root).unwrap().to_owned();
        core.visit_file(&source);
    }
    assert!(core.secrets.len() >= 8, "{:?}", core.secrets);
    core
}

impl Core {
    /// The types that can hold the text of a secret, however deep.
    fn holders(&self) -> BTreeSet<&str> {
        let mut held: BTreeSet<&str> = self.secrets.iter().map(String::as_str).collect();
        held.extend(["Zeroizing", "BearerToken", "SecretBytes"]);
        loop {
            let more: Vec<&str> = self
                .types
                .iter()
                .filter(|(name, of)| {
                    !held.contains(name.as_str()) && of.names.iter().any(|name| held.contains(name.as_str()))
                })
                .map(|(name, _)| name.as_str())
                .collect();
            if more.is_empty() {
                return held;
            }
            held.extend(more);
        }
    }
}

/// A word that no test mistakes for anything else; it fits every kind of secret.
const CANARY: &str = "canary-7Qe3zW9bLk2vXn5tRj8mPd4sHf6yGc1aUo0iKlZxTqV";

/// How it is known of a type with a `Debug` of its own that it shows no secret.
enum Held {
    /// Formatted here, with the canary inside.
    Shown(String),
    /// Made by the core alone; a test that formats it with a secret inside.
    By(&'static str),
    /// It shows one field, of a type whose own `Debug` is held here; which.
    Field(&'static str),
    /// It holds no secret, and why.
    Nothing(&'static str),
}

fn jwt() -> String {
    let encoded = |json: &str| base64url::encode(json.as_bytes());
    let claims = format!("{{\"sub\":\"{CANARY}\"}}");
    format!("{}.{}.{}", encoded("{\"alg\":\"EdDSA\"}"), encoded(&claims), base64url::encode(&[7; 64]))
}

fn held() -> BTreeMap<&'static str, Held> {
    use Held::{By, Field, Nothing, Shown};
    const LOGIN: &str = "tests/world/redaction.rs#nothing_that_passes_in_a_whole_login_shows_a_secret";
    let json = format!("{{\"token\":\"{CANARY}\",\"deep\":{{\"token\":\"{CANARY}\"}}}}");
    let object = JsonObject::parse(json.as_bytes(), 1000).unwrap();
    let flat = FlatObject::parse(json.as_bytes(), 1000).unwrap();
    let form = format!("code={CANARY}");
    let text = jwt();
    let mut buffer = JwtBuffer::new();
    let jwt = UnverifiedJwt::parse(&text, &mut buffer).unwrap();
    let reply = Reply::new(200, CANARY).with_header("www-authenticate", CANARY.as_bytes());
    let head = RequestHead::new("GET", &format!("/mcp?code={CANARY}"))
        .with_header("authorization", CANARY.as_bytes());
    let callback =
        Callback::from_url(&format!("http://127.0.0.1/cb?code={CANARY}&state={CANARY}&iss={CANARY}"))
            .unwrap();
    macro_rules! secrets {
        ($($kind:ident),+) => {[$((stringify!($kind), Shown(format!("{:?}", $kind::new(CANARY).unwrap())))),+]};
    }
    let mut held = BTreeMap::from(secrets!(
        AccessToken,
        RefreshToken,
        AuthorizationCode,
        CodeVerifier,
        ClientSecret,
        IdToken,
        Nonce,
        RegistrationToken,
        State,
        SubmittedToken
    ));
    held.extend([
        ("SecretBytes", Shown(format!("{:?}", SecretBytes::new(CANARY.into())))),
        ("JsonObject", Shown(format!("{object:?}"))),
        ("JsonValue", Shown(format!("{:?} {:?}", object.get("token"), object.get("deep")))),
        ("FlatObject", Shown(format!("{flat:?}"))),
        ("Form", Shown(format!("{:?}", Form::parse(form.as_bytes()).unwrap()))),
        ("UnverifiedJwt", Shown(format!("{jwt:?}"))),
        ("Reply", Shown(format!("{reply:?}"))),
        ("RequestHead", Shown(format!("{head:?}"))),
        ("Callback", Shown(format!("{callback:?}"))),
        ("ErrorText", Shown(format!("{:?}", ErrorText::filtered(CANARY)))),
        ("ErrorDetail", Shown(format!("{:?}", ErrorDetail::of(CANARY)))),
        ("UnknownCode", Shown(format!("{:?}", TokenErrorCode::parse(CANARY).unwrap()))),
    ]);
    let pushed = ObjectWriter::new().string("kind", "pushed").integer("version", 1).string("client_id", "c");
    let pushed = pushed.string("query", format!("state={CANARY}")).integer("not_after", 1).finish();
    held.insert("PushedRecord", Shown(format!("{:?}", PushedRecord::from_bytes(&pushed).unwrap())));
    let key = GraceKey::new(*b"canary-7Qe3zW9bLk2vXn5tRj8mPd4s!");
    held.extend([
        ("RefreshGrace", Shown(format!("{:?}", RefreshGrace::new(Duration::SECOND, 1, key).unwrap()))),
        ("SecretDigest", Shown(format!("{:?}", SecretDigest::of(CANARY.as_bytes())))),
    ]);
    // The core alone makes these: a whole login formats each of them, with the secrets of that login inside.
    for name in [
        "Authorized",
        "AwaitingCodeStored",
        "AwaitingClientStored",
        "ConsentView",
        "Fetch",
        "OpenUserAgent",
        "Redirect",
        "Respond",
        "Sign",
        "StepUpRecord",
    ] {
        held.insert(name, By(LOGIN));
    }
    held.extend([
        ("AwaitingManaged", Field("RegistrationToken")),
        ("AwaitingReservation", Field("ClientAuthenticated")),
        ("FamilyId", Nothing("the name of a family, of which no token can be made")),
        ("KeySet", Nothing("public keys")),
        ("ScopeSet", Nothing("scopes")),
        ("TokenFailure", Nothing("a reason")),
        ("VerifiedJwt", Nothing("a view of a token: its type")),
    ]);
    held
}

#[test]
fn no_type_with_bare_secret_text_shows_its_fields() {
    for (name, of) in &core().types {
        let bare = of.names.contains("Zeroizing");
        assert!(!(bare && of.derives.contains("Debug")), "{name} derives Debug over secret text");
    }
}

#[test]
fn nothing_is_serialized_but_json_values() {
    let core = core();
    let written: BTreeSet<&str> = core
        .types
        .iter()
        .filter(|(name, of)| {
            let by_hand = core.by_hand.get(*name);
            ["Serialize", "Deserialize"].iter().any(|serde| {
                of.derives.contains(*serde) || by_hand.is_some_and(|traits| traits.contains(*serde))
            })
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(written, BTreeSet::from(["JsonObject", "JsonValue"]));
}

#[test]
fn every_type_that_says_for_itself_what_it_shows_shows_no_secret() {
    let core = core();
    let holders = core.holders();
    let own = |name: &str, text: &str| core.by_hand.get(name).is_some_and(|traits| traits.contains(text));
    let types = core.types.iter().filter(|(_, of)| of.is_public).map(|(name, _)| name.as_str());
    let expected: BTreeSet<&str> = types
        .filter(|name| {
            let debug = own(name, "Debug") && !core.constant.contains(*name);
            debug || (own(name, "Display") && holders.contains(name))
        })
        .chain(core.secrets.iter().map(String::as_str))
        .collect();
    let held = held();
    assert_eq!(held.keys().copied().collect::<BTreeSet<_>>(), expected);
    for (name, of) in held {
        match of {
            Held::Shown(shown) => {
                assert!(!shown.is_empty() && !shown.contains(&CANARY[..12]), "{name}: {shown}");
            }
            Held::By(test) => {
                let (file, function) = test.split_once('#').unwrap();
                let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
                assert!(source.contains(&format!("fn {function}(")), "{name}: {test}");
            }
            Held::Field(of) => {
                let source =
                    core.types[name].files.iter().map(|file| fs::read_to_string(root().join(file)).unwrap());
                assert!(
                    (expected.contains(of) || !holders.contains(of))
                        && source.into_iter().any(|text| text.contains(of)),
                    "{name}: {of}"
                );
            }
            Held::Nothing(why) => {
                assert!(!holders.contains(name) && !why.is_empty(), "{name} can hold a secret")
            }
        }
    }
}
