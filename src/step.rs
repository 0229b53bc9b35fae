//! What a transition returns: an action for the host and the state that waits for its result.

/// An action to carry out, and the state that consumes what comes of it.
///
/// The state is unusable until the action is taken out with [`Step::into_parts`]; most states offer nothing
/// but a method that takes the action's result.
#[must_use = "the action has to be carried out and the state waits for its result"]
#[derive(Debug)]
pub struct Step<A, S> {
    action: A,
    state: S,
}

impl<A, S> Step<A, S> {
    pub(crate) fn new(action: A, state: S) -> Self {
        Self { action, state }
    }

    /// The action, for a look before it is carried out.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// The state, for a look at its evidence.
    pub(crate) fn state(&self) -> &S {
        &self.state
    }

    /// Splits the step into the action and the state that waits for its result.
    pub fn into_parts(self) -> (A, S) {
        (self.action, self.state)
    }
}

/// A transition that failed for a reason the host can mend: the error, and the state as it was before.
#[must_use = "the state is still alive and the flow can go on from it"]
#[derive(Debug)]
pub struct Failed<S, E = crate::error::Error> {
    /// Why the transition did not happen.
    pub error: E,
    /// The unchanged state, to go on from.
    pub state: S,
}

impl<S, E> Failed<S, E> {
    pub(crate) fn new(error: impl Into<E>, state: S) -> Self {
        Self { error: error.into(), state }
    }
}
