//! Opens the person's browser, at a URL of the core and nothing else (I-L6).

use mcp_authz::client::OpenUserAgent;

/// No browser could be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no browser could be started; open the printed URL by hand")]
pub struct BrowserFailed;

/// Opens the authorization URL.
///
/// The URL is the core's: https, or http on loopback, of printable ASCII. It is handed to the browser as one argument
/// and never to a shell.
///
/// # Errors
/// [`BrowserFailed`] where there is no browser, or no display to show it on.
#[cfg(feature = "browser")]
pub async fn open(action: &OpenUserAgent) -> Result<(), BrowserFailed> {
    let url = action.url().to_owned();
    // MCP-SBP-043
    let opened = tokio::task::spawn_blocking(move || {
        let options = webbrowser::BrowserOptions::new().with_suppress_output(true).clone();
        webbrowser::open_browser_with_options(webbrowser::Browser::Default, &url, &options)
    });
    match opened.await {
        Ok(Ok(())) => Ok(()),
        _ => Err(BrowserFailed),
    }
}

/// Opens nothing: this build has no way to.
///
/// # Errors
/// Always [`BrowserFailed`].
#[cfg(not(feature = "browser"))]
pub async fn open(_action: &OpenUserAgent) -> Result<(), BrowserFailed> {
    Err(BrowserFailed)
}
