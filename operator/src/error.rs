//! What can go wrong in a reconcile that is not the user's to mend.

/// A failure that is tried again, with growing pauses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("{doing}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{doing}: no answer within {seconds} s")]
    AwaitAnswer {
        /// What was being done.
        doing: &'static str,
        /// The limit.
        seconds: u64,
    },
}

impl Error {
    /// Short text for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Call { doing, .. } | Self::AwaitAnswer { doing, .. } => doing,
        }
    }
}
