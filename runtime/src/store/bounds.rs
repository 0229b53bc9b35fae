//! How much may wait at one time.

/// How much strangers may cause to be stored at one time (I-P7).
///
/// Room for one more is made by deleting what has ended, then the oldest of the same person or client: never what somebody
/// else waits for, so that a flood takes nothing away. Where that leaves no room, the newcomer is refused. Processes that
/// insert together over one PostgreSQL database may pass a bound by as many as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Consent pages that wait for an answer: 10 000.
    pub decisions: usize,
    /// Of these, one person's: 20; their oldest gives way.
    pub decisions_of_a_person: usize,
    /// Pushed requests that wait for their browser, of clients that the operator let in and that have proved who they are: 10 000.
    /// A request is at most as long as a form, [`limits::FORM_BYTES`](mcp_authz::limits::FORM_BYTES), and mostly less than 1 KiB:
    /// so many take some 10 MB of memory or disk, and at worst 330 MB. Whoever holds an initial access token registers as many
    /// such clients as they like, and can fill it.
    pub pushed_of_operator: usize,
    /// Pushed requests of all other clients, which anybody can make: 10 000, as large. However many wait, there is room for
    /// those of the operator's clients. Among each other they take away nothing, but 50 clients with all their places taken
    /// leave none for one that has nothing waiting: it is refused until some of these have ended. And since anybody can push in
    /// the name of a public client, 200 such requests take the places of its own.
    pub pushed_of_strangers: usize,
    /// Of either, one client's: 200; its oldest gives way.
    pub pushed_of_a_client: usize,
    /// Clients the operator did not write and no person has ever authorized: 10 000. The oldest gives way, but for those
    /// with a page that waits, a code that was not redeemed, or a grant.
    pub unused_clients: usize,
}

/// How many callers of a store in SQL wait to be served together, of one kind in PostgreSQL and of all kinds in SQLite: as many as `serve`
/// has connections. Whoever comes when so many wait is told at once to try again, so that a database that is slower than those who ask
/// does not fill the memory.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const WAITING: usize = 4096;

impl Bounds {
    /// How many pushed requests of that kind may wait.
    pub(super) fn pushed(&self, of_operator: bool) -> usize {
        if of_operator { self.pushed_of_operator } else { self.pushed_of_strangers }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            decisions: 10_000,
            decisions_of_a_person: 20,
            pushed_of_operator: 10_000,
            pushed_of_strangers: 10_000,
            pushed_of_a_client: 200,
            unused_clients: 10_000,
        }
    }
}
