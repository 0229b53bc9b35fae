//! What `--relax` says, for every command that takes it.

use mcp_authz::policy::{InvalidRelaxation, Policy, Relaxation};

/// The policy of these relaxations.
///
/// # Errors
/// [`InvalidRelaxation::Twice`] for one that is named twice for one server.
pub(crate) fn of(relaxations: &[Relaxation]) -> Result<Policy, InvalidRelaxation> {
    // I-G2: refused, as where a policy is read.
    let lines: Vec<String> = relaxations.iter().map(Relaxation::to_string).collect();
    lines.join("\n").parse()
}
