//! The token endpoint: who asks, and a code for tokens (OAuth 2.1 sections 3.2 and 4.1.3, RFC 7636 section 4.6).
//!
//! Each state waits for one action of the store or of the key holder. Nothing is changed before every check has
//! passed and the token is signed; the tokens leave only after the store has committed.
//!
//! ```text
//!   AuthorizationServer::token
//!      │ FindClient
//!   AwaitingCaller (caller.rs) ── grant_type=refresh_token ──> AwaitingRefresh (refresh.rs)
//!      │ ReadCode
//!   AwaitingCode ───────────────── spent ──┐
//!      │ Sign, unless opaque               │ RevokeFamily
//!   AwaitingSignature                      │
//!      │ RedeemCode                        │
//!   AwaitingRedemption ────────── replayed ┤
//!      │                          AwaitingRevocation
//!   Respond 200                        Respond 400 invalid_grant
//! ```
//!
//! | check | where | ids |
//! |---|---|---|
//! | one form, no parameter twice | `token` | OAUTH21-3.2-4 |
//! | one mechanism, right secret | `authentication` | OAUTH21-2.4-2, OAUTH21-3.2.2-2 |
//! | grant type registered | `go_on` | OAUTH21-3.2.4-5 |
//! | code is this client's | `judge` | OAUTH21-4.1.3-4 |
//! | verifier | `judge` | OAUTH21-4.1.3-6 |
//! | redirect URI, if sent | `judge` | OAUTH21-10.2-1 |
//! | first use | `judge`, `redeemed` | OAUTH21-4.1.3-1, -2, -3 |
//! | expiry by the store's clock | `judge` | OAUTH21-4.1.2-1 |
//! | resource within the grant | `judge` | RFC8707-2.2-1 |

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authentication::{ClientAuthenticated, PresentedCredentials};
use crate::authorization_server::authorization::ForeignReceipt;
use crate::authorization_server::caller::{Asked, AwaitingCaller, CallerOutcome};
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::issuance::{self, Issuance, Issued, Planned};
use crate::authorization_server::record::{CodeRecord, GrantRecord};
use crate::authorization_server::refresh::AwaitingRefresh;
use crate::authorization_server::store::{
    ActionId, CodeFound, CodeRedemption, FamilyRevocation, FindClient, FoundState, Outcome, ReadCode,
    RedeemCode, RevocationReason, RevokeFamily,
};
use crate::entropy::{Ahead, Entropy};
use crate::evidence::VerifierMatched;
use crate::jose::{Sign, Signed};
use crate::message::Malformed;
use crate::message::exchange::{RequestHead, Respond};
use crate::message::token::{CodeGrant, Grant, RefreshGrant};
use crate::secret::SecretDigest;
use crate::step::{Failed, Step};
use crate::syntax::form::{Form, FormError};

impl AuthorizationServer {
    /// A request at the token endpoint: the head and the body, read up to [`crate::limits::FORM_BYTES`].
    ///
    /// The query is not looked at: nothing there counts (OAUTH21-2.4.1-3).
    ///
    /// # Errors
    /// [`TokenFailure`], whose answer goes out at once, when the request is no well-formed token request.
    pub fn token(
        &self,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<Step<FindClient, AwaitingCaller>, TokenFailure> {
        let form = read_form(head, body)?;
        // OAUTH21-3.2-3: parameters this server does not know are not looked at; empty ones are absent.
        let request = match Grant::from_form(&form).map_err(malformed)? {
            Grant::AuthorizationCode(code) => Presented::Code(code),
            Grant::RefreshToken(refresh) => Presented::Refresh(refresh),
            // OAUTH21-10.1-2: no password grant, no implicit grant, nothing else.
            _ => return Err(TokenFailure::new(TokenReason::UnsupportedGrantType)),
        };
        let credentials = PresentedCredentials::read(head, &form).map_err(TokenFailure::new)?;
        Ok(AwaitingCaller::step(self, credentials, Asked::Token(request)))
    }
}

/// Reads the body of a POST that has to be a form.
pub(crate) fn read_form(head: &RequestHead, body: &[u8]) -> Result<Form, TokenFailure> {
    // RFC 9110 section 9.1: methods are compared as they are.
    if head.method() != "POST" {
        return Err(TokenFailure::new(TokenReason::NotPost));
    }
    let mut kinds = head.content_type();
    let is_form = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => is_form_type(kind),
        _ => false,
    };
    if !is_form {
        return Err(TokenFailure::new(TokenReason::NotAForm));
    }
    Form::parse(body).map_err(|error| malformed(Malformed::Form(error)))
}

fn is_form_type(value: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// The reason for a message outside its grammar.
pub(crate) fn malformed(error: Malformed) -> TokenFailure {
    TokenFailure::new(match error {
        // OAUTH21-3.2-4, OAUTH21-3.1-7
        Malformed::Form(FormError::Duplicate) => TokenReason::Repeated,
        Malformed::Form(_) | Malformed::Json(_) => TokenReason::NotAForm,
        Malformed::Missing(name) => TokenReason::Missing(name),
        Malformed::Invalid(name) => TokenReason::Malformed(name),
        _ => TokenReason::NotAForm,
    })
}

/// What a token request asks for, while its client is found out.
#[derive(Debug)]
pub(crate) enum Presented {
    Code(CodeGrant),
    Refresh(RefreshGrant),
}

impl Presented {
    /// The client is who it says: its code or refresh token is read.
    pub(crate) fn go_on(
        self,
        server: AuthorizationServer,
        client: ClientAuthenticated,
    ) -> Result<CallerOutcome, TokenReason> {
        match self {
            Self::Code(request) => {
                // OAUTH21-3.2.4-5
                if !client.may_use("authorization_code") {
                    return Err(TokenReason::GrantTypeNotRegistered);
                }
                let digest = request.code.digest();
                let read = ReadCode::new(digest);
                let inner = CodeInner { server, client, request, digest };
                Ok(CallerOutcome::Code(Step::new(read, AwaitingCode(Box::new(inner)))))
            }
            Self::Refresh(request) => {
                if !client.may_use("refresh_token") {
                    return Err(TokenReason::GrantTypeNotRegistered);
                }
                Ok(CallerOutcome::Refresh(AwaitingRefresh::step(server, client, request)))
            }
        }
    }
}

/// Waits for the code's record. Reading it changes nothing, so a guess at a code costs its owner nothing.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingCode(Box<CodeInner>);

#[derive(Debug)]
struct CodeInner {
    server: AuthorizationServer,
    client: ClientAuthenticated,
    request: CodeGrant,
    /// Of the code that was presented.
    digest: SecretDigest,
}

/// What follows on the code's record.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum CodeOutcome {
    /// Everything fits; next the access token is signed.
    Sign(Step<Sign, AwaitingSignature>),
    /// Everything fits; the access token is opaque, and next the code is redeemed.
    Redeem(Step<RedeemCode, AwaitingRedemption>),
    /// A used code came back with everything that fits it: its family is revoked before the refusal goes out.
    Replayed(Step<RevokeFamily, AwaitingRevocation>),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingCode {
    /// The store has read the code.
    pub fn found(self, found: CodeFound, entropy: &mut dyn Entropy) -> CodeOutcome {
        self.0.judge(found, entropy).unwrap_or_else(|reason| CodeOutcome::Refused(TokenFailure::new(reason)))
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

impl CodeInner {
    fn judge(self, found: CodeFound, entropy: &mut dyn Entropy) -> Result<CodeOutcome, TokenReason> {
        let digest = self.digest;
        if found.digest != digest {
            return Err(TokenReason::HostMisuse);
        }
        let (record, spent) = match found.state {
            FoundState::Live(record) => (record, false),
            FoundState::Used(record) => (record, true),
            FoundState::Absent => return Err(TokenReason::CodeUnknown),
        };
        let verifier = self.own(&record)?;
        let grant = Arc::clone(&record.grant);
        if spent {
            // OAUTH21-4.1.3-2, OAUTH21-4.1.3-3, OAUTH21-7.5.3-1: only for somebody who had everything but the first
            // turn. Whoever merely guesses ends above, and the owner's tokens stay (I-C3).
            let revoke = AwaitingRevocation::step(&grant, RevocationReason::CodeReplayed, entropy)?;
            return Ok(CodeOutcome::Replayed(revoke));
        }
        // OAUTH21-4.1.2-1: by the clock of the store, which every process shares.
        if found.now >= record.expires {
            return Err(TokenReason::CodeExpired);
        }
        issuance::check_target(&grant, self.request.resource.as_deref())?;
        let scope = issuance::current_scope(&self.server, &self.client, &grant, &grant.scope)?;
        let entropy = &mut Ahead::<80>::of(entropy);
        let refresh = if record.refresh && self.client.may_use("refresh_token") {
            // OAUTH21-3.2.3-6: the decision said so and the client can use it.
            Some(issuance::first_refresh(&self.server, &grant, found.now, entropy)?)
        } else {
            None
        };
        let (token, row) = refresh
            .map(|(token, record)| {
                let digest = token.digest();
                (token, (digest, record))
            })
            .unzip();
        let no_entropy = |_| TokenReason::NoEntropy;
        match Issuance::plan(&self.server, &grant, scope, token, found.now, entropy)? {
            Planned::Sign(sign, issuance) => {
                let (redeem, id) = RedeemCode::new(digest, grant, row, None, entropy).map_err(no_entropy)?;
                let inner = SignatureInner { redeem, id, issuance, verifier };
                Ok(CodeOutcome::Sign(Step::new(sign, AwaitingSignature(Box::new(inner)))))
            }
            Planned::Opaque(issued, access) => {
                let kept = Arc::clone(&grant);
                let (redeem, id) =
                    RedeemCode::new(digest, kept, row, Some(access), entropy).map_err(no_entropy)?;
                let inner = RedemptionInner { id, grant, issued };
                Ok(CodeOutcome::Redeem(Step::new(redeem, AwaitingRedemption(Box::new(inner)))))
            }
        }
    }

    /// Whether the presenter is the one the code was issued to: client, verifier, redirect URI.
    fn own(&self, record: &CodeRecord) -> Result<VerifierMatched, TokenReason> {
        // OAUTH21-4.1.3-4
        if record.grant.client_id != *self.client.client_id() {
            return Err(TokenReason::CodeForOtherClient);
        }
        // OAUTH21-4.1.3-6, OAUTH21-4.1.3-5, OAUTH21-4.1.3-7: no record is without a challenge, no request without a verifier.
        let verifier = VerifierMatched::compare(&record.challenge(), &self.request.code_verifier)
            .ok_or(TokenReason::VerifierMismatch)?;
        // OAUTH21-10.2-1 (D14): the exact bytes of the authorization request, port included.
        match &self.request.redirect_uri {
            Some(uri) if uri.as_bytes() != record.redirect_uri.as_str().as_bytes() => {
                Err(TokenReason::RedirectMismatch)
            }
            _ => Ok(verifier),
        }
    }
}

/// Waits for the signature of the access token. The code is still unspent.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingSignature(Box<SignatureInner>);

#[derive(Debug)]
struct SignatureInner {
    redeem: RedeemCode,
    id: ActionId,
    issuance: Issuance,
    verifier: VerifierMatched,
}

impl AwaitingSignature {
    /// The key holder has signed.
    ///
    /// # Errors
    /// [`TokenFailure`] for the signature of another action.
    pub fn signed(self, signed: Signed) -> Result<Step<RedeemCode, AwaitingRedemption>, TokenFailure> {
        let SignatureInner { redeem, id, issuance, .. } = *self.0;
        let issued = issuance.signed(signed).map_err(TokenFailure::new)?;
        let grant = Arc::clone(redeem.grant());
        Ok(Step::new(redeem, AwaitingRedemption(Box::new(RedemptionInner { id, grant, issued }))))
    }

    /// The key holder did not sign. Nothing was changed; the code can be presented again.
    pub fn signer_failed(self) -> Respond {
        TokenFailure::new(TokenReason::SignerFailed).respond()
    }

    /// The proof that the presenter holds the verifier.
    pub fn verifier(&self) -> &VerifierMatched {
        &self.0.verifier
    }
}

/// Holds the tokens back until the store has committed the redemption.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRedemption(Box<RedemptionInner>);

#[derive(Debug)]
struct RedemptionInner {
    id: ActionId,
    grant: Arc<GrantRecord>,
    issued: Issued,
}

/// What follows on the redemption.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum RedemptionOutcome {
    /// Committed: the answer with the tokens.
    Tokens(Respond),
    /// Somebody else redeemed the code in between: its family is revoked before the refusal goes out.
    Replayed(Step<RevokeFamily, AwaitingRevocation>),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingRedemption {
    /// The store has carried out the redemption, or found that it must not.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn redeemed(
        self,
        receipt: CodeRedemption,
        entropy: &mut dyn Entropy,
    ) -> Result<RedemptionOutcome, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(ForeignReceipt, self));
        }
        let RedemptionInner { grant, issued, .. } = *self.0;
        let refused = |reason| RedemptionOutcome::Refused(TokenFailure::new(reason));
        Ok(match receipt.outcome {
            // OAUTH21-4.1.3-1: the one way to the tokens (I-C1, I-G4).
            Outcome::Done => RedemptionOutcome::Tokens(issued.respond()),
            // OAUTH21-4.1.3-3: this request has passed every check of ownership, and was not the first.
            Outcome::Used => AwaitingRevocation::step(&grant, RevocationReason::CodeReplayed, entropy)
                .map_or_else(refused, RedemptionOutcome::Replayed),
            Outcome::Revoked => refused(TokenReason::GrantRevoked),
            Outcome::Absent => refused(TokenReason::CodeUnknown),
        })
    }

    /// The store failed, before or after it committed: the tokens are dropped. The client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits for a family's revocation; the refusal is to be had for its receipt only (I-G5).
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRevocation(Box<RevocationInner>);

#[derive(Debug)]
struct RevocationInner {
    id: ActionId,
    reason: TokenReason,
}

impl AwaitingRevocation {
    pub(crate) fn step(
        grant: &GrantRecord,
        reason: RevocationReason,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<RevokeFamily, Self>, TokenReason> {
        let (revoke, id) = RevokeFamily::new(grant, reason, entropy).map_err(|_| TokenReason::NoEntropy)?;
        let reason = match reason {
            RevocationReason::CodeReplayed => TokenReason::CodeReplayed,
            RevocationReason::RefreshReused => TokenReason::RefreshReused,
            RevocationReason::ClientRequest | RevocationReason::PersonRequest => TokenReason::GrantRevoked,
        };
        Ok(Step::new(revoke, Self(Box::new(RevocationInner { id, reason }))))
    }

    /// The family is revoked: the refusal to answer with.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn revoked(self, receipt: FamilyRevocation) -> Result<TokenFailure, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(ForeignReceipt, self));
        }
        // OAUTH21-3.2.4-4
        Ok(TokenFailure::new(self.0.reason))
    }

    /// The store failed: the family may still be alive, so the answer is 503 and nothing that sounds final.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}
