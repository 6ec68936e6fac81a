//! The properties of an S3 store that only real services show.

mod locks;
mod objects;
mod past;
mod protection;
mod roles;
mod server_copies;
mod table;
mod thaw;
mod tiers;
mod whole;
