//! How the person gets to see the authorization server's page.

use std::fmt;

use mcp_authz::client::OpenUserAgent;

use super::browser::{self, BrowserFailed};
use crate::BoxFuture;

/// Shows the authorization server's page to the person.
pub trait UserAgent: Send + Sync + fmt::Debug + 'static {
    /// Carries the action out and returns as soon as the page is on its way: the answer comes to the callback listener.
    ///
    /// # Errors
    /// [`BrowserFailed`] when there is nobody to show it to.
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>>;
}

/// The browser that the person's system opens links with.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemBrowser;

impl UserAgent for SystemBrowser {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        Box::pin(browser::open(action))
    }
}
