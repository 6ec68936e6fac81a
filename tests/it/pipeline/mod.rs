//! The chain from entries to sealed objects and back, and its formats.

mod breakglass;
mod chain;
mod frozen;
mod vectors;
