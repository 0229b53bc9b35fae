//! A relaxation is for one server.

use mcp_authz::policy::{Policy, Relaxation};

fn loosen() -> Policy {
    Policy::strict().relax(Relaxation::AssumeS256)
}

fn main() {}
