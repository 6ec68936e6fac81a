//! The subcommands, as people and timers start them.

mod cleanup;
mod cli;
mod drill;
mod golden;
mod init;
mod notify;
mod prune;
mod refusals;
mod reports;
mod run;
mod simulated_week;
mod simulated_years;
mod smtp;
mod status;
mod tick;
