//! Every size, depth and count the core accepts, in one place, each with its reason.

/// Longest accepted URL or identifier, in bytes. Browsers and servers commonly refuse more than 8 KiB per
/// request line; identifiers are far shorter.
pub const URL_BYTES: usize = 2048;

/// Longest authorization URL the core emits, in bytes.
pub const AUTHORIZATION_URL_BYTES: usize = 8192;

/// Largest metadata or key set document, in bytes.
pub const DOCUMENT_BYTES: usize = 64 * 1024;

/// Largest registration request a server reads, in bytes: anybody may send one, and all of it is stored. A few RSA
/// keys fit beside everything else.
pub const REGISTRATION_BYTES: usize = 16 * 1024;

/// Largest client metadata document, in bytes (client ID metadata document draft, section 6.6: 5 KB).
pub const CLIENT_METADATA_DOCUMENT_BYTES: usize = 5 * 1024;

/// How long nothing has to be at the URL of a client's metadata document before its grants end, in days (D41).
pub const DOCUMENT_GONE_DAYS: i64 = 7;

/// Largest token, registration or introspection reply, in bytes. Tokens with many claims reach tens of KiB.
pub const REPLY_BYTES: usize = 64 * 1024;

/// Largest form body a server role reads, in bytes. A signed assertion fits.
pub const FORM_BYTES: usize = 32 * 1024;

/// Most parameters in one form or query.
pub const FORM_PARAMETERS: usize = 64;

/// Deepest nesting of JSON the core reads. Metadata nests two or three levels.
pub const JSON_DEPTH: usize = 16;

/// Most members and elements in one JSON document.
pub const JSON_NODES: usize = 4096;

/// Longest `WWW-Authenticate` or `Authorization` field value, in bytes; servers commonly cap a header at 8 KiB
/// and access tokens are the longest thing in one.
pub const FIELD_BYTES: usize = 16 * 1024;

/// Most challenges read from one response.
pub const CHALLENGES: usize = 16;

/// Most parameters in one challenge.
pub const CHALLENGE_PARAMETERS: usize = 32;

/// Longest access, refresh or opaque token, in bytes.
pub const TOKEN_BYTES: usize = 12 * 1024;

/// Longest `state`, in bytes: ours are 43, another client's may carry sealed data.
pub const STATE_BYTES: usize = 2048;

/// Longest authorization code, in bytes.
pub const CODE_BYTES: usize = 2048;

/// Most scope tokens in one set (D36: challenge and metadata scopes are bounded in count and length).
pub const SCOPES: usize = 128;

/// Longest scope token, in bytes.
pub const SCOPE_BYTES: usize = 256;

/// Most authorization servers read from one protected resource metadata document.
pub const AUTHORIZATION_SERVERS: usize = 16;

/// Longest URL that this client proposes as its identifier: it stands in every request, and people read it.
pub const CLIENT_METADATA_URL_BYTES: usize = 256;

/// Most redirect URIs in one registration.
pub const REDIRECT_URIS: usize = 32;

/// Longest client name, in bytes; longer ones are refused at registration.
pub const CLIENT_NAME_BYTES: usize = 256;

/// Longest `error_description` kept, in bytes: a sentence or two for a log.
pub const ERROR_TEXT_BYTES: usize = 512;

/// Longest `error` code read, in bytes; the longest registered one has 33.
pub const ERROR_CODE_BYTES: usize = 64;

/// Most documents fetched while discovering one server: two resource metadata locations, three authorization
/// server locations, and as many again for a second issuer.
pub const DISCOVERY_FETCHES: u32 = 10;

/// How long a client assertion may be used, in seconds: for the one request it is made for.
pub const CLIENT_ASSERTION_SECONDS: i64 = 60;

/// How far ahead the end of another's client assertion may lie, in seconds: its identifier is kept as long.
pub const CLIENT_ASSERTION_SECONDS_MOST: i64 = 600;

/// How long a process may take for one refresh, in seconds, before another may try (D39): twice a fetch's time limit.
pub const REFRESH_CLAIM_SECONDS: i64 = 60;

/// Authorization attempts for one resource and operation before a step-up is refused (D33).
pub const STEP_UP_ATTEMPTS: u32 = 3;

/// How long a fetch may take, in seconds.
pub const FETCH_SECONDS: u16 = 20;

/// Longest header of a signed token, in bytes. `alg`, `kid` and `typ` need about a hundred; the rest is room for
/// certificate thumbprints.
pub const JWS_HEADER_BYTES: usize = 2048;

/// Most keys in one key set. Large providers publish about ten.
pub const KEYS: usize = 64;

/// How far the clocks of a token's issuer and its resource may be apart, in seconds, unless the host says otherwise.
pub const CLOCK_LEEWAY_SECONDS: i64 = 30;

/// The most a host may allow clocks to be apart, in seconds: every second lengthens the life of every token.
pub const CLOCK_LEEWAY_SECONDS_MOST: i64 = 120;

/// How long fetched keys are used without asking again, in seconds.
pub const KEYS_FRESH_SECONDS: i64 = 600;

/// How long fetched keys are still used after that while they cannot be fetched again, in seconds (D42). Then the
/// issuer's tokens are answered with 503.
pub const KEYS_STALE_SECONDS: i64 = 3600;

/// The least time between two attempts of the timed refresh of one issuer's keys that failed, in seconds.
pub const KEYS_RETRY_SECONDS: i64 = 30;

/// The least time between two fetches for unknown key names of one issuer, in seconds: tokens with invented names must
/// not turn this server against the issuer.
pub const UNKNOWN_KEY_SECONDS: i64 = 60;

/// How long a key name that a fresh set did not have is known not to be there, in seconds.
pub const ABSENT_KEY_SECONDS: i64 = 300;

/// How long the answer about an opaque token is used, in seconds, if it does not expire sooner: the longest a
/// revocation may go unnoticed.
pub const INTROSPECTION_CACHE_SECONDS: i64 = 60;

/// How long an opaque token that is not active is known to be so, in seconds.
pub const INACTIVE_CACHE_SECONDS: i64 = 10;

/// The longest a host may let an opaque token without expiry be used before it is asked about again, in seconds (D32).
pub const NON_EXPIRING_SECONDS_MOST: i64 = 60;

/// Most tokens of one resource server that are remembered, unless the host says otherwise; about a kilobyte each.
pub const CACHED_TOKENS: usize = 4096;
