//! The table of channels: the only place that names them.

use crate::notify::{ChannelKind, email, http};

/// Every kind of channel.
pub const KINDS: &[ChannelKind] = &[http::WEBHOOK, http::SLACK, email::KIND];
