//! A client of a cluster that asks in TigerBeetle's own records.
//!
//! - [`record`]: the records. [`answer`]: what comes back.
//! - [`session`]: questions and their answers; [`pager`] asks for many, page by page.
//! - [`private`]: the session's end of a pipe to a server that is alone in a network; [`frame`] is what travels
//!   through it. [`private_server`]: the other end, and [`start`] what starts the server.

mod answer;
mod frame;
pub(super) mod pager;
pub(super) mod private;
pub(super) mod private_server;
pub(super) mod record;
pub(super) mod session;
pub(super) mod start;
