//! Captures of TigerBeetle, its change log, and restores of both.

mod cluster;
mod histories;
mod imports;
mod large_database;
mod live_captures;
mod logs;
mod parent_choice;
mod repairs;
