//! The client against servers that are honest but for one thing, over real sockets. Each case says what the one thing
//! is, whose fault the client takes it for, what it advises, and where it stops; `world` checks at the end of each that
//! no code, verifier, token, secret or state has been anywhere but in its place.

mod callbacks;
mod challenges;
mod discovery;
mod documents;
mod issuers;
mod redirects;
mod registration;
mod server;
mod shown;
mod tokens;
mod world;
