//! The operating system's keychain: Secret Service, Keychain, Credential Manager. It holds one short text.

use std::fmt;

use zeroize::Zeroizing;

/// The keychain cannot be used: there is none, it is locked, or it refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeychainUnusable(pub String);

/// One entry of a keychain. Calls may take as long as a person takes to unlock it.
pub trait Keychain: Send + Sync + fmt::Debug + 'static {
    /// The entry, if there is one.
    ///
    /// # Errors
    /// [`KeychainUnusable`]
    fn read(&self) -> Result<Option<Zeroizing<String>>, KeychainUnusable>;

    /// Makes or replaces the entry.
    ///
    /// # Errors
    /// [`KeychainUnusable`]
    fn write(&self, text: &str) -> Result<(), KeychainUnusable>;
}

#[cfg(feature = "keyring")]
pub use system::SystemKeychain;

#[cfg(feature = "keyring")]
mod system {
    use std::sync::mpsc;
    use std::time::Duration;

    use keyring::v1::{Entry, Error};
    use zeroize::Zeroizing;

    use super::{Keychain, KeychainUnusable};

    /// How long the person may take to unlock the keychain.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// The keychain of this system's person.
    #[derive(Debug, Clone)]
    pub struct SystemKeychain {
        application: String,
    }

    impl SystemKeychain {
        /// The entry of that application.
        pub fn new(application: impl Into<String>) -> Self {
            Self { application: application.into() }
        }

        /// Does it on a thread of its own: a keychain that nobody unlocks does not answer.
        fn ask<T: Send + 'static>(
            &self,
            question: impl FnOnce(&Entry) -> Result<T, Error> + Send + 'static,
        ) -> Result<T, KeychainUnusable> {
            let application = self.application.clone();
            let (answer, waiting) = mpsc::channel();
            let asking = std::thread::Builder::new().name("keychain".into()).spawn(move || {
                // The reason why there is none says more than that there is none.
                let answered = match Entry::store_status() {
                    Err(why) => Err(KeychainUnusable(why.to_string())),
                    Ok(()) => Entry::new(&application, "key of the stored credentials")
                        .and_then(|entry| question(&entry))
                        .map_err(|error| KeychainUnusable(error.to_string())),
                };
                // Nobody waits any more: then nobody hears it.
                drop(answer.send(answered));
            });
            asking.map_err(|error| KeychainUnusable(error.to_string()))?;
            let unanswered = |_| KeychainUnusable("it did not answer; is it locked?".into());
            waiting.recv_timeout(PATIENCE).map_err(unanswered)?
        }
    }

    impl Keychain for SystemKeychain {
        fn read(&self) -> Result<Option<Zeroizing<String>>, KeychainUnusable> {
            self.ask(|entry| match entry.get_password() {
                Ok(text) => Ok(Some(Zeroizing::new(text))),
                Err(Error::NoEntry) => Ok(None),
                Err(error) => Err(error),
            })
        }

        fn write(&self, text: &str) -> Result<(), KeychainUnusable> {
            let text = Zeroizing::new(text.to_owned());
            self.ask(move |entry| entry.set_password(&text))
        }
    }
}
