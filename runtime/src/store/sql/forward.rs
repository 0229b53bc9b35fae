// [`Store`] and [`AdministeredStore`] over the transactions: the same for every SQL database, like `rows.rs`.

use mcp_authz::authorization_server::record::{ClientRecord, ConsentRecord, FamilyId, GrantRecord};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, RevokeAll, RevokeFamily,
    RotateRefresh, UpdateClient,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use super::administration::{RESTORED, SWEEPS, consents_of, grants_of};
use super::{This, Turn};
use crate::store::{AdministeredStore, GrantsOf, KeyRow, ReadSession, SessionFound, Store, Stored};

/// Declares one method per action that reads.
macro_rules! read {
    ($($method:ident($action:ty) -> $receipt:ty = $statement:ident;)*) => {
        $(fn $method(&self, action: $action) -> Stored<'_, $receipt> {
            self.read(action, Turn::$statement)
        })*
    };
}

/// Declares one method per action, carried out by the transaction of that name.
macro_rules! carry_out {
    ($($method:ident($action:ty) -> $receipt:ty = $transaction:ident;)*) => {
        $(fn $method(&self, action: $action) -> Stored<'_, $receipt> {
            self.carry_out(action, Turn::$transaction)
        })*
    };
}

/// Declares one method per action of a flow.
macro_rules! step {
    ($($method:ident($action:ty) -> $receipt:ty = $transaction:ident;)*) => {
        $(fn $method(&self, action: $action) -> Stored<'_, $receipt> {
            self.step(action, Turn::$transaction)
        })*
    };
}

impl Store for This {
    read! {
        find_client(FindClient) -> ClientFound = find_client_row;
        read_pushed(ReadPushed) -> PushedFound = read_pushed_row;
        read_consent(ReadConsent) -> ConsentFound = read_consent_row;
        read_access(ReadAccess) -> AccessFound = read_access_row;
        read_grant(ReadGrant) -> GrantFound = read_grant_row;
        read_decision(ReadDecision) -> DecisionFound = read_decision_row;
        read_code(ReadCode) -> CodeFound = read_code_row;
        read_refresh(ReadRefresh) -> RefreshFound = read_refresh_row;
        read_session(ReadSession) -> SessionFound = read_session_row;
    }

    carry_out! {
        insert_client(InsertClient) -> ClientInsertion = insert_client_row;
        put_client(ClientRecord) -> () = put_client_row;
        update_client(UpdateClient) -> ClientUpdate = update_client_row;
        delete_client(DeleteClient) -> ClientDeletion = delete_client_row;
        insert_pushed(InsertPushed) -> PushedInsertion = insert_pushed_row;
        insert_decision(InsertDecision) -> DecisionInsertion = insert_decision_row;
        revoke_family(RevokeFamily) -> FamilyRevocation = revoke_family_row;
        revoke_all(RevokeAll) -> AllRevoked = revoke_all_row;
        reserve_once(ReserveOnce) -> Reservation = reserve_once_row;
    }

    step! {
        decide_once(DecideOnce) -> DecisionTaken = decide_once_rows;
        redeem_code(RedeemCode) -> CodeRedemption = redeem_code_rows;
        rotate_refresh(RotateRefresh) -> RefreshRotation = rotate_refresh_rows;
    }

    fn sweep(&self) -> Stored<'_, ()> {
        Stored::later(async move {
            // Others write between two batches.
            for rows in SWEEPS {
                while self.carry_out(rows, Turn::sweep_rows).await? {}
            }
            while self.carry_out((), Turn::sweep_epochs).await? {}
            Ok(())
        })
    }
}

impl AdministeredStore for This {
    fn list_grants<'a>(&'a self, of: GrantsOf<'a>, after: Option<FamilyId>) -> Stored<'a, Vec<GrantRecord>> {
        self.list((grants_of(of), after), Turn::list_grant_rows)
    }

    fn list_consents<'a>(
        &'a self,
        of: GrantsOf<'a>,
        after: Option<SecretDigest>,
    ) -> Stored<'a, Vec<ConsentRecord>> {
        self.list((consents_of(of), after), Turn::list_consent_rows)
    }

    fn list_clients<'a>(&'a self, after: Option<&'a ClientId>) -> Stored<'a, Vec<ClientRecord>> {
        self.list(after.cloned(), Turn::list_client_rows)
    }

    fn remove_client<'a>(&'a self, client: &'a ClientId) -> Stored<'a, bool> {
        self.carry_out(client.clone(), Turn::remove_client_row)
    }

    fn keys(&self) -> Stored<'_, (Vec<KeyRow>, OffsetDateTime)> {
        self.read((), Turn::key_rows)
    }

    fn publish_key(&self, key: KeyRow) -> Stored<'_, bool> {
        self.carry_out(key, Turn::publish_key_row)
    }

    fn promote_key<'a>(&'a self, kid: &'a str) -> Stored<'a, bool> {
        self.carry_out(kid.to_owned(), Turn::promote_key_row)
    }

    fn replace_keys<'a>(&'a self, kid: &'a str) -> Stored<'a, bool> {
        self.carry_out(kid.to_owned(), Turn::replace_keys_rows)
    }

    fn forget_key<'a>(&'a self, kid: &'a str) -> Stored<'a, bool> {
        self.carry_out(kid.to_owned(), Turn::forget_key_row)
    }

    fn incarnation(&self) -> Stored<'_, u64> {
        self.read((), Turn::incarnation_row)
    }

    fn advance_incarnation(&self) -> Stored<'_, u64> {
        self.carry_out((), Turn::advance_incarnation_row)
    }

    fn restored(&self, seen: u64) -> Stored<'_, u64> {
        Stored::later(async move {
            for rows in RESTORED {
                self.carry_out_at_length(rows, Turn::delete_restored_rows).await?;
            }
            // The number goes last: a restoration that was interrupted is refused again.
            self.carry_out(seen, Turn::incarnation_after).await
        })
    }
}
