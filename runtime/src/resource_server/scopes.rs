//! Which scopes an operation needs: from the request's head, or from the JSON-RPC message in its body (D46).

use std::collections::BTreeMap;

use http::Method;
use http::request::Parts;
use mcp_authz::identifier::ScopeSet;
use mcp_authz::resource_server::{InvalidConfiguration, RequiredScopes};
use mcp_authz::syntax::json::{JsonBounds, JsonObject, JsonValue};

use super::one_reading::{as_it_stands, no_near_names};
use crate::mcp_fields;

/// How deep the arguments of a tool may nest.
const MESSAGE_DEPTH: usize = 64;

/// How many members and elements a body may have unless the host says otherwise.
const MESSAGE_NODES: usize = 256 * 1024;

/// Says what each operation needs. The same operation must always name the same scopes (MCP-AUTH-019).
///
/// A function from the head to the scopes is one.
pub trait OperationScopes: Send + Sync + 'static {
    /// The scopes as far as the head tells; the challenge for a request without a token names them.
    fn of_head(&self, head: &Parts) -> RequiredScopes;

    /// Whether the body has to be read to know.
    fn reads_body(&self, _head: &Parts) -> bool {
        false
    }

    /// The scopes once the body is read. They take the place of those of the head.
    ///
    /// # Errors
    /// [`UnreadableOperation`] for a body that does not say one thing only, or another than the head; the answer is 400.
    fn of_body(&self, head: &Parts, _body: &[u8]) -> Result<RequiredScopes, UnreadableOperation> {
        Ok(self.of_head(head))
    }
}

/// The request does not say, or says in two ways, which operation it is. Its text goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableOperation {
    /// Not one JSON-RPC message, one without the members that name its operation, or more than is read.
    #[error(
        "the body is no JSON-RPC message that names one operation and each member once, or has more elements than are read"
    )]
    Body,
    /// The body may be in another charset than UTF-8, or says what it is twice.
    #[error("send one Content-Type, with charset=utf-8 or without a charset")]
    ContentType,
    /// The body is compressed.
    #[error("send the body without a Content-Encoding")]
    ContentEncoding,
    /// A member has the name of one that decides, but for the case of its letters.
    #[error(
        "write the names of members as JSON-RPC and MCP do: one here differs from jsonrpc, id, method, params, name or uri only in the case of its letters"
    )]
    NearName,
    /// A header field that repeats the body says something else, or is there twice.
    #[error("a header field (Mcp-Method, Mcp-Name) does not say what the body says")]
    OtherField,
    /// A header field that this revision of MCP asks for is not there.
    #[error(
        "a header field that this revision of MCP asks for is missing (Mcp-Method, and Mcp-Name for what has a name)"
    )]
    MissingField,
}

impl<F: Fn(&Parts) -> RequiredScopes + Send + Sync + 'static> OperationScopes for F {
    fn of_head(&self, head: &Parts) -> RequiredScopes {
        self(head)
    }
}

/// The scopes of an MCP server on streamable HTTP, by JSON-RPC method and by tool.
///
/// Every request needs the base scopes, and those of its method and tool besides.
#[derive(Debug, Clone)]
pub struct McpScopes {
    base: ScopeSet,
    methods: BTreeMap<String, ScopeSet>,
    tools: BTreeMap<String, ScopeSet>,
    nodes: usize,
}

impl McpScopes {
    /// What every request needs.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn new(base: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(base.clone())?;
        Ok(Self { base, methods: BTreeMap::new(), tools: BTreeMap::new(), nodes: MESSAGE_NODES })
    }

    /// What a JSON-RPC method needs besides; what two calls say of one method adds up.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn method(mut self, name: &str, scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(scopes.clone())?;
        add(&mut self.methods, name, &scopes);
        Ok(self)
    }

    /// What a call of a tool needs besides; what two calls say of one tool adds up.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn tool(mut self, name: &str, scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(scopes.clone())?;
        add(&mut self.tools, name, &scopes);
        Ok(self)
    }

    /// Reads bodies with up to so many members and elements; 262,144 without this call. Each takes some 50 bytes of memory
    /// while the body is looked at. The bytes are bounded by the layer's own limit.
    #[must_use]
    pub fn most_nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// What one message needs, checked against the head's account of it.
    fn of_message(&self, head: &Parts, message: &JsonObject) -> Result<ScopeSet, UnreadableOperation> {
        // D46
        no_near_names(message)?;
        let mut scopes = self.base.clone();
        // A response or notification of the client has no method to look up, or one without scopes.
        let method = message.string("method").map_err(|_| UnreadableOperation::Body)?;
        let name = match method {
            Some("tools/call" | "prompts/get") => Some(parameter(message, "name")?),
            Some("resources/read") => Some(parameter(message, "uri")?),
            // Clients repeat the names of other methods too.
            Some(_) => parameter(message, "name").or_else(|_| parameter(message, "uri")).ok(),
            None => None,
        };
        // Notifications and responses need not repeat themselves.
        let required =
            method.is_some() && message.get("id").is_some() && mcp_fields::are_required(&head.headers);
        agrees(head, mcp_fields::METHOD, method, required)?;
        let named = matches!(method, Some("tools/call" | "prompts/get" | "resources/read"));
        agrees(head, mcp_fields::NAME, name, required && named)?;
        if let Some(more) = method.and_then(|method| self.methods.get(method)) {
            scopes = scopes.union(more);
        }
        if let (Some("tools/call"), Some(more)) = (method, name.and_then(|name| self.tools.get(name))) {
            scopes = scopes.union(more);
        }
        Ok(scopes)
    }

    /// The messages of a body: one object, or the objects of an array (the batches of revision 2025-03-26).
    fn messages(&self, body: &[u8]) -> Result<Vec<JsonObject>, UnreadableOperation> {
        if body.trim_ascii_start().first() != Some(&b'[') {
            return Ok(vec![self.object(body)?]);
        }
        let object = self.object(&[b"{\"batch\":".as_slice(), body, b"}"].concat())?;
        let (Some(JsonValue::Array(entries)), 1) = (object.get("batch"), object.names().count()) else {
            return Err(UnreadableOperation::Body);
        };
        entries
            .iter()
            .map(|entry| match entry {
                JsonValue::Object(message) => Ok(message.clone()),
                _ => Err(UnreadableOperation::Body),
            })
            .collect()
    }

    fn object(&self, text: &[u8]) -> Result<JsonObject, UnreadableOperation> {
        // The layer has bounded the bytes.
        let bounds = JsonBounds { bytes: text.len(), depth: MESSAGE_DEPTH, nodes: self.nodes };
        JsonObject::parse_within(text, bounds).map_err(|_| UnreadableOperation::Body)
    }
}

/// Adds to what is needed: a second word about one operation never takes the first one back.
fn add(needed: &mut BTreeMap<String, ScopeSet>, name: &str, scopes: &ScopeSet) {
    let of_one = needed.entry(name.to_owned()).or_default();
    *of_one = of_one.union(scopes);
}

/// Whether a request with this method is about its body (RFC 9110 section 9.3 gives the others none).
#[must_use]
pub fn method_has_a_body(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS].contains(method)
}

/// What a message is about: a tool or prompt by its name, a resource by its URI.
fn parameter<'m>(message: &'m JsonObject, name: &'static str) -> Result<&'m str, UnreadableOperation> {
    let params = message.object("params").ok().flatten().ok_or(UnreadableOperation::Body)?;
    params.required_string(name).map_err(|_| UnreadableOperation::Body)
}

/// A header that repeats a member of the body must equal it; several of them are an error, and so is one that the revision
/// asks for and that is not there.
fn agrees(
    head: &Parts,
    field: &'static str,
    member: Option<&str>,
    required: bool,
) -> Result<(), UnreadableOperation> {
    let mut values = head.headers.get_all(field).iter();
    match (values.next(), values.next(), member) {
        (None, _, Some(_)) if required => Err(UnreadableOperation::MissingField),
        (None, ..) => Ok(()),
        (Some(value), None, Some(member)) if mcp_fields::says(value, member) => Ok(()),
        _ => Err(UnreadableOperation::OtherField),
    }
}

impl OperationScopes for McpScopes {
    fn of_head(&self, _head: &Parts) -> RequiredScopes {
        // Checked when they were set: the same constructor cannot fail here.
        RequiredScopes::new(self.base.clone()).unwrap_or_default()
    }

    fn reads_body(&self, head: &Parts) -> bool {
        // I-A13: whatever method the server behind takes for a POST, the body of it was authorized. What drops the bodies of the
        // others is whoever passes requests on.
        method_has_a_body(&head.method)
    }

    fn of_body(&self, head: &Parts, body: &[u8]) -> Result<RequiredScopes, UnreadableOperation> {
        // D46
        as_it_stands(&head.headers)?;
        let messages = self.messages(body)?;
        if messages.is_empty() {
            return Err(UnreadableOperation::Body);
        }
        // D46: each element of a batch is authorized, so the request needs what they need together.
        let mut scopes = ScopeSet::new();
        for message in &messages {
            scopes = scopes.union(&self.of_message(head, message)?);
        }
        // Checked when they were set: the same constructor cannot fail here.
        RequiredScopes::new(scopes).map_err(|_| UnreadableOperation::Body)
    }
}

/// The scopes of an HTTP server by method and path, for a resource whose operations are not in its bodies.
///
/// A route speaks for its path and everything below it, by whole segments, and one of GET for HEAD as well. A request needs the base scopes and those of
/// every route that speaks for it.
#[derive(Debug, Clone)]
pub struct RouteScopes {
    base: ScopeSet,
    routes: Vec<(Option<Method>, String, ScopeSet)>,
}

impl RouteScopes {
    /// What every request needs.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn new(base: ScopeSet) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(base.clone())?;
        Ok(Self { base, routes: Vec::new() })
    }

    /// What requests with this method, or with any, need at this path and below it.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn route(
        mut self,
        method: impl Into<Option<Method>>,
        path: &str,
        scopes: ScopeSet,
    ) -> Result<Self, InvalidConfiguration> {
        RequiredScopes::new(scopes.clone())?;
        self.routes.push((method.into(), path.trim_end_matches('/').to_owned(), scopes));
        Ok(self)
    }
}

impl OperationScopes for RouteScopes {
    fn of_head(&self, head: &Parts) -> RequiredScopes {
        let path = head.uri.path();
        let speaks = |route: &&(Option<Method>, String, ScopeSet)| {
            let (method, prefix, _) = route;
            // RFC 9110 section 9.3.2: HEAD is a GET whose answer is not sent.
            let also = if head.method == Method::HEAD { &Method::GET } else { &head.method };
            method.as_ref().is_none_or(|method| *method == head.method || method == also)
                && path
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // A path that a router could read in another way needs what any route needs.
        let plain = !path.contains(['%', '\\', ';']) && !path.contains("//") && !path.contains("/.");
        let routes = self.routes.iter().filter(|route| !plain || speaks(route));
        let scopes = routes.fold(self.base.clone(), |scopes, (_, _, more)| scopes.union(more));
        // Checked when they were set: the same constructor cannot fail here.
        RequiredScopes::new(scopes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http::request::Parts;
    use http::{Method, Request};
    use mcp_authz::identifier::ScopeSet;

    use super::{McpScopes, OperationScopes as _, RouteScopes, UnreadableOperation};

    fn scopes() -> McpScopes {
        let set = |text| ScopeSet::parse(text).unwrap();
        McpScopes::new(set("notes:read")).unwrap().tool("write_note", set("notes:write")).unwrap()
    }

    fn head(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/mcp");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn needed(fields: &[(&str, &str)], body: &str) -> Option<String> {
        let required = scopes().of_body(&head(fields), body.as_bytes()).ok()?;
        Some(required.scopes().to_string())
    }

    fn refused(fields: &[(&str, &str)], body: &str) -> UnreadableOperation {
        scopes().of_body(&head(fields), body.as_bytes()).unwrap_err()
    }

    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    const WRITE: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"write_note"}}"#;

    // D46
    #[test]
    fn a_tool_adds_its_scopes_to_the_base() {
        assert_eq!(needed(&[], LIST).unwrap(), "notes:read");
        assert_eq!(needed(&[], WRITE).unwrap(), "notes:read notes:write");
        assert_eq!(needed(&[], &format!("[{LIST},{WRITE}]")).unwrap(), "notes:read notes:write");
    }

    // D46
    #[test]
    fn what_does_not_say_one_thing_is_refused() {
        for body in [
            "",
            "[]",
            "null",
            "[1]",
            "{",
            r#"{"method":"tools/list","method":"tools/call"}"#,
            r#"{"method":"tools/call"}"#,
            r#"{"method":"tools/call","params":{}}"#,
            r#"{"method":["tools/call"]}"#,
            r#"[{"method":"tools/list"}],"x":1"#,
        ] {
            assert_eq!(needed(&[], body), None, "{body}");
        }
    }

    // D46
    #[test]
    fn headers_that_repeat_the_body_agree_with_it() {
        let right = [("mcp-method", "tools/call"), ("mcp-name", "write_note")];
        assert_eq!(needed(&right, WRITE).unwrap(), "notes:read notes:write");
        assert_eq!(needed(&[("mcp-method", "tools/list")], WRITE), None);
        assert_eq!(needed(&[("mcp-name", "read_note")], WRITE), None);
        assert_eq!(needed(&[("mcp-method", "tools/call"), ("mcp-method", "tools/call")], WRITE), None);
        assert_eq!(needed(&[("mcp-method", "tools/call")], r#"{"id":1,"result":{}}"#), None);
    }

    // D46
    #[test]
    fn a_name_in_the_head_is_the_name_in_the_body_whatever_the_method() {
        let read = r#"{"method":"resources/read","params":{"uri":"file:///a"}}"#;
        let prompt = r#"{"method":"prompts/get","params":{"name":"p"}}"#;
        assert!(needed(&[("mcp-name", "file:///a")], read).is_some());
        assert!(needed(&[("mcp-name", "p")], prompt).is_some());
        for (name, body) in [("file:///b", read), ("write_note", prompt), ("", read), ("write_note", LIST)] {
            assert_eq!(needed(&[("mcp-name", name)], body), None, "{name} {body}");
        }
        for body in [r#"{"method":"resources/read"}"#, r#"{"method":"prompts/get","params":{"name":1}}"#] {
            assert_eq!(needed(&[], body), None, "{body}");
        }
        // A prompt of a tool's name is no tool.
        let prompt = r#"{"method":"prompts/get","params":{"name":"write_note"}}"#;
        assert_eq!(needed(&[], prompt).unwrap(), "notes:read");
    }

    // D46
    #[test]
    fn the_revision_that_has_the_fields_needs_them_of_requests() {
        let of = |revision| ("mcp-protocol-version", revision);
        let now = of("2026-07-28");
        let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "write_note"));
        assert!(needed(&[now, method, name], WRITE).is_some());
        for fields in [&[now][..], &[now, method], &[now, name], &[of("2027-01-01")]] {
            assert_eq!(refused(fields, WRITE), UnreadableOperation::MissingField, "{fields:?}");
        }
        assert!(needed(&[of("2025-11-25")], WRITE).is_some());
        assert!(needed(&[now, ("mcp-method", "tools/list")], LIST).is_some(), "it has no name");
        let subscribe = r#"{"id":1,"method":"resources/subscribe","params":{"uri":"file:///a"}}"#;
        let method = ("mcp-method", "resources/subscribe");
        assert!(needed(&[now, method], subscribe).is_some(), "nothing asks for its name");
        assert!(needed(&[now, method, ("mcp-name", "file:///a")], subscribe).is_some());
        assert_eq!(refused(&[method, ("mcp-name", "file:///b")], subscribe), UnreadableOperation::OtherField);
        assert!(needed(&[now], r#"{"method":"notifications/cancelled"}"#).is_some());
        assert!(needed(&[now], r#"{"id":1,"result":{}}"#).is_some());
    }

    // D46
    #[test]
    fn a_name_that_no_field_can_hold_comes_encoded() {
        let call = r#"{"id":1,"method":"tools/call","params":{"name":"caf\u00e9"}}"#;
        let method = ("mcp-method", "tools/call");
        assert!(needed(&[method, ("mcp-name", "=?base64?Y2Fmw6k=?=")], call).is_some());
        for name in ["=?base64?Y2Fmw6k?=", "=?base64?YQ==?=", "cafe"] {
            assert_eq!(
                refused(&[method, ("mcp-name", name)], call),
                UnreadableOperation::OtherField,
                "{name}"
            );
        }
    }

    // D46, I-G1
    #[test]
    fn a_large_call_is_read_and_an_endless_one_is_not() {
        let call = |arguments: &str| {
            format!(
                r#"{{"id":1,"method":"tools/call","params":{{"name":"write_note","arguments":{arguments}}}}}"#
            )
        };
        let rows = |count: usize| format!("[{}1]", "[1,2,3],".repeat(count));
        assert!(needed(&[], &call(&rows(50_000))).is_some());
        assert_eq!(refused(&[], &call(&rows(70_000))), UnreadableOperation::Body);
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(needed(&[], &call(&deep(60))).is_some());
        assert_eq!(refused(&[], &call(&deep(65))), UnreadableOperation::Body);
        let few = scopes().most_nodes(10);
        assert!(few.of_body(&head(&[]), call("[1]").as_bytes()).is_ok());
        assert_eq!(few.of_body(&head(&[]), call(&rows(3)).as_bytes()), Err(UnreadableOperation::Body));
    }

    // D46, I-G2
    #[test]
    fn what_the_server_behind_could_read_in_another_way_is_refused() {
        assert_eq!(
            refused(&[("content-type", "application/json; charset=utf-7")], LIST),
            UnreadableOperation::ContentType
        );
        assert_eq!(refused(&[("content-encoding", "gzip")], LIST), UnreadableOperation::ContentEncoding);
        let twice = r#"{"id":1,"method":"tools/list","Method":"tools/call","params":{"name":"write_note"}}"#;
        assert_eq!(refused(&[], twice), UnreadableOperation::NearName);
        assert_eq!(refused(&[], &format!("[{LIST},{twice}]")), UnreadableOperation::NearName);
    }

    // I-A13
    #[test]
    fn the_body_decides_for_every_method_that_has_one() {
        let reads = |method: &str| {
            let parts = Request::builder().method(method).uri("/mcp").body(()).unwrap().into_parts().0;
            scopes().reads_body(&parts)
        };
        for method in ["POST", "PUT", "PATCH", "QUERY", "TRACE", "post", "get"] {
            assert!(reads(method), "{method}");
        }
        for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
            assert!(!reads(method), "{method}");
        }
    }

    // I-A13
    #[test]
    fn two_words_about_one_operation_add_up() {
        let set = |text| ScopeSet::parse(text).unwrap();
        let scopes = scopes().tool("write_note", set("notes:audit")).unwrap();
        let scopes = scopes.method("tools/call", set("a")).unwrap().method("tools/call", set("b")).unwrap();
        let required = scopes.of_body(&head(&[]), WRITE.as_bytes()).unwrap();
        assert_eq!(required.scopes(), &set("notes:read notes:write notes:audit a b"));
    }

    // I-A13
    #[test]
    fn a_route_of_get_speaks_for_head() {
        let set = |text| ScopeSet::parse(text).unwrap();
        let routes =
            RouteScopes::new(set("base")).unwrap().route(Method::GET, "/files", set("files")).unwrap();
        for (method, needed) in [("GET", "base files"), ("HEAD", "base files"), ("POST", "base")] {
            let parts = Request::builder().method(method).uri("/files/a").body(()).unwrap().into_parts().0;
            assert_eq!(routes.of_head(&parts).scopes().to_string(), needed, "{method}");
        }
    }

    // I-A11
    #[test]
    fn a_route_speaks_for_its_path_and_below_and_an_ambiguous_path_needs_everything() {
        let set = |text| ScopeSet::parse(text).unwrap();
        let routes = RouteScopes::new(set("base"))
            .unwrap()
            .route(Method::DELETE, "/files", set("files:delete"))
            .unwrap()
            .route(None, "/files/private/", set("private"))
            .unwrap();
        let needed = |method: &str, target: &str| {
            let parts = Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0;
            routes.of_head(&parts).scopes().to_string()
        };
        assert_eq!(needed("GET", "/files"), "base");
        assert_eq!(needed("DELETE", "/files?x=/files/private"), "base files:delete");
        assert_eq!(needed("DELETE", "/filesystem"), "base");
        assert_eq!(needed("GET", "/files/private"), "base private");
        assert_eq!(needed("GET", "/files/private/a"), "base private");
        assert_eq!(needed("DELETE", "/files/private/a"), "base files:delete private");
        for path in [
            "/x/%2e%2e/files/private",
            "/files//private",
            "/x/../files",
            "/files/./private",
            "/files%2fprivate",
            "/files;x/private",
        ] {
            assert_eq!(needed("GET", path), "base files:delete private", "{path}");
        }
    }
}
