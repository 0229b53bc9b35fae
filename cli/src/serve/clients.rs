//! Clients of the operator's: their files, and which of them are one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord, SecretMethod};
use mcp_authz::identifier::ClientId;
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::secret::ClientSecret;
use mcp_authz::syntax::json::JsonObject;
use mcp_authz::time::OffsetDateTime;

use super::configuration::Misconfigured;

/// What is read of a client's file.
const MEMBERS: [&str; 19] = [
    "client_id",
    "client_secret",
    "redirect_uris",
    "client_name",
    "client_uri",
    "logo_uri",
    "tos_uri",
    "policy_uri",
    "contacts",
    "grant_types",
    "response_types",
    "token_endpoint_auth_method",
    "token_endpoint_auth_signing_alg",
    "scope",
    "application_type",
    "jwks_uri",
    "jwks",
    "software_id",
    "software_version",
];

/// All clients that stand in the configuration: the resource servers that introspect, and those of the files. No two have one
/// identifier: the one would take the other's place (I-G8).
pub(super) fn configured(
    introspectors: Vec<ClientRecord>,
    files: &[PathBuf],
    now: OffsetDateTime,
) -> Result<Vec<ClientRecord>, Misconfigured> {
    let mut whose = BTreeMap::new();
    let mut all = Vec::new();
    for record in introspectors {
        whose.insert(record.client_id.as_str().to_owned(), "an introspection_client".to_owned());
        all.push(record.configured());
    }
    for file in files {
        let record = client(file, now)?;
        let id = record.client_id.as_str();
        if let Some(other) = whose.insert(id.to_owned(), format!("client {}", file.display())) {
            return Err(Misconfigured(format!(
                "client {}: its client_id {id:?} is that of {other}, too: each client has its own",
                file.display()
            )));
        }
        all.push(record.configured());
    }
    Ok(all)
}

/// Says that a member is none that is read, and which may be meant.
fn unread(name: &str) -> String {
    let same = |name: &str| {
        let letters = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase());
        letters.collect::<String>().trim_end_matches('s').to_owned()
    };
    match MEMBERS.iter().find(|known| same(known) == same(name)) {
        Some(meant) => format!("{name:?} is no member of a client: did you mean {meant:?}?"),
        None => {
            format!("{name:?} is no member of a client that is read here; those are {}", MEMBERS.join(", "))
        }
    }
}

/// A client of the operator's, from its file.
pub(super) fn client(file: &Path, now: OffsetDateTime) -> Result<ClientRecord, Misconfigured> {
    let name = format!("client {}", file.display());
    let json = fs::read(file).map_err(|error| Misconfigured(format!("{name}: {error}")))?;
    client_of(&json, &name, now)
}

/// A client of the operator's, from JSON.
pub(super) fn client_of(json: &[u8], name: &str, now: OffsetDateTime) -> Result<ClientRecord, Misconfigured> {
    let named = |error: &dyn std::fmt::Display| Misconfigured(format!("{name}: {error}"));
    let object = JsonObject::parse(json, 65_536).map_err(|error| named(&error))?;
    // I-G8: what is misspelt, or not kept to, is no restriction.
    if let Some(unknown) = object.names().find(|name| !MEMBERS.contains(name)) {
        return Err(named(&unread(unknown)));
    }
    let metadata = ClientMetadata::parse(json).map_err(|error| named(&error))?;
    let id = object.required_string("client_id").map_err(|error| named(&error))?;
    let id = ClientId::new(id).map_err(|error| named(&error))?;
    let secret = object.string("client_secret").map_err(|error| named(&error))?;
    let secret = secret.map(ClientSecret::new).transpose().map_err(|error| named(&error))?;
    let with = |method, secret: Option<ClientSecret>| {
        let digest = secret.ok_or_else(|| named(&"the method needs a client_secret"))?.digest();
        Ok(ClientCredential::Secret { method, digest, expires: None })
    };
    let credential = match metadata.token_endpoint_auth_method.as_deref() {
        Some("none") if secret.is_none() => ClientCredential::None,
        Some("private_key_jwt") if secret.is_none() => ClientCredential::PrivateKey,
        None | Some("client_secret_basic") => with(SecretMethod::Basic, secret)?,
        Some("client_secret_post") => with(SecretMethod::Post, secret)?,
        // I-P6
        Some("none" | "private_key_jwt") => return Err(named(&"the method has no client_secret")),
        Some(_) => return Err(named(&"token_endpoint_auth_method is none of this server's")),
    };
    ClientRecord::pre_registered(id, metadata, credential, now).ok_or_else(|| {
        named(&"it needs acceptable redirect_uris, keys for private_key_jwt, and an id that is no URL")
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use mcp_authz::message::client_metadata::ClientMetadata;
    use mcp_authz::syntax::json::JsonObject;
    use mcp_authz::time::OffsetDateTime;

    use super::super::configuration::Settings;
    use super::super::file::parse;
    use super::super::parts;
    use super::{MEMBERS, client_of, configured};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn with(member: &str) -> String {
        format!(
            r#"{{"client_id":"a","redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"none"{member}}}"#
        )
    }

    // I-G8: a scope that is misspelt would be every scope.
    #[test]
    fn a_member_that_nobody_knows_is_refused_by_its_name() {
        let said = |member: &str| client_of(with(member).as_bytes(), "client a.json", NOW).err();
        assert!(said(r#","scope":"read""#).is_none());
        for (member, words) in [
            (
                r#","scopes":"read""#,
                r#"client a.json: "scopes" is no member of a client: did you mean "scope"?"#,
            ),
            (r#","grant_type":["authorization_code"]"#, r#"did you mean "grant_types"?"#),
            (r#","softwareId":"hunter2""#, r#"did you mean "software_id"?"#),
            (r#","client_secret_expires_at":1"#, r#""client_secret_expires_at" is no member"#),
            (r#","\u001b[31m":"hunter2""#, r#""\u{1b}[31m" is no member"#),
        ] {
            let said = said(member).unwrap().to_string();
            assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn every_member_of_a_client_is_known() {
        let text = r#"{"redirect_uris":["https://a.example/cb"],"client_name":"A","client_uri":"https://a.example/",
            "logo_uri":"https://a.example/l","tos_uri":"https://a.example/t","policy_uri":"https://a.example/p",
            "contacts":["a@a.example"],"grant_types":["authorization_code"],"response_types":["code"],
            "token_endpoint_auth_method":"private_key_jwt","token_endpoint_auth_signing_alg":"ES256","scope":"read",
            "application_type":"web","software_id":"a","software_version":"1","KEYS"#;
        let mut read = vec!["client_id".to_owned(), "client_secret".to_owned()];
        for keys in [r#"jwks_uri":"https://a.example/k"}"#, r#"jwks":{"keys":[]}}"#] {
            let metadata = ClientMetadata::parse(text.replace("KEYS", keys).as_bytes()).unwrap();
            let object = JsonObject::parse(&metadata.render(), 65_536).unwrap();
            read.extend(object.names().map(str::to_owned));
        }
        read.sort();
        read.dedup();
        let mut known = MEMBERS.to_vec();
        known.sort_unstable();
        assert_eq!(read, known);
    }

    // I-G8: the second would take the first one's place, with its redirect URIs and its secret.
    #[test]
    fn no_two_clients_of_the_configuration_have_one_identifier() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, id: &str| -> PathBuf {
            let file = folder.path().join(name);
            std::fs::write(&file, with("").replace(r#""client_id":"a""#, &format!(r#""client_id":"{id}""#)))
                .unwrap();
            file
        };
        let (one, same, other) = (file("one.json", "a"), file("same.json", "a"), file("other.json", "b"));
        let introspectors = |more: &str| {
            let text = format!(
                "issuer = \"https://auth.example\"\n[[resource]]\nid = \"https://a.example/\"\nscopes = {{ a = \"A\" }}\n\
                 introspection_client = \"server\"\nintrospection_secret_digest = \"{}\"\n{more}",
                "A".repeat(43)
            );
            let settings = parse::<Settings>(&text).unwrap();
            parts::server(&settings, &[0; 32], NOW).map(|(_, introspectors)| introspectors)
        };
        let first = || introspectors("").unwrap();
        let all = configured(first(), &[one.clone(), other], NOW).unwrap();
        assert!(all.len() == 3 && all.iter().all(|client| client.configured));
        for files in [[one.clone(), same.clone()], [one.clone(), one.clone()]] {
            let said = configured(first(), &files, NOW).err().unwrap().to_string();
            assert!(said.contains("client_id \"a\"") && said.contains("one.json"), "{said}");
            assert!(said.contains(files[1].to_str().unwrap()), "{said}");
        }
        let said = configured(first(), &[file("server.json", "server")], NOW).err().unwrap().to_string();
        assert!(said.contains("server.json") && said.contains("introspection_client"), "{said}");
        // One resource server of two resources is one client; with two secrets it would have the last one's.
        let second = |digest: &str| {
            introspectors(&format!(
                "[[resource]]\nid = \"https://b.example/\"\nscopes = {{ a = \"A\" }}\n\
                 introspection_client = \"server\"\nintrospection_secret_digest = \"{digest}\"\n"
            ))
        };
        assert_eq!(second(&"A".repeat(43)).unwrap().len(), 1);
        let said = second(&format!("B{}", "A".repeat(42))).err().unwrap().to_string();
        assert!(said.contains("https://b.example/") && said.contains("\"server\""), "{said}");
    }
}
