//! Answers of a cluster, and its errors.

use std::sync::mpsc::SyncSender;

use tigerbeetle_unofficial::core::error::SendError;

/// What a cluster answers.
#[derive(Debug)]
pub(crate) struct ClusterAnswer {
    pub(crate) bytes: Vec<u8>,
    /// When the cluster answered, by its clock: everything that it had taken until then is in the
    /// answer. Nanoseconds since 1970.
    pub(crate) timestamp: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// What the client says.
    Client(SendError),
    /// What a client in a private network said.
    Text(String),
}

/// Where the answer to a question is awaited.
pub(super) type AnswerSender = SyncSender<Result<ClusterAnswer, RequestError>>;
