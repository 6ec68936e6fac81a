//! `PostgreSQL`'s servers, of each version that bkp knows.

mod base_backups;
mod copy;
mod drills;
mod dumps;
mod health;
mod hooks;
mod pitr;
mod servers;
mod tenants;
