//! What `doctor` tries of those who are told, and of what only some jobs need.

use super::{Found, bad, good, probe, tried};
use crate::error::{Fault, Kind};
use crate::tell;
use crate::wire::House;

/// Every channel and every ping: what is secret of them can be read. Nobody is told anything.
pub(super) fn told(house: &House) -> Vec<Found> {
    let channels = house
        .settings
        .notify
        .iter()
        .map(|to| (format!("notify.{}", to.channel.name), tell::rehearse(&to.channel)));
    let pings = house.settings.jobs.values().filter_map(|job| {
        let url = job.ping.as_deref()?;
        Some((format!("job.{}.ping", job.name), tell::url_of(url).map(drop)))
    });
    let found = channels.chain(pings).map(|(place, outcome)| {
        let hint = format!(
            "correct what `{place}` refers to: a file of mode 600 that belongs to the user who runs bkp"
        );
        let named = outcome.map_err(|error| {
            anyhow::Error::from(Fault::new(Kind::Config, format!("{error:#}")).hint(hint))
        });
        tried(place, named.map(|()| "what is secret of it can be read; nobody was told".to_owned()))
    });
    found.collect()
}

/// Every source of which a job makes exports: an export works on a copy in the state directory.
pub(super) fn exports(house: &House) -> Vec<Found> {
    let jobs = house.settings.jobs.values().filter(|job| job.run.word == "export");
    let mut names: Vec<&str> = jobs.filter_map(|job| job.source.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let found = names.into_iter().filter_map(|name| {
        let path = house.settings.sources.get(name)?.table.get("path")?.as_str()?;
        let what = format!("export of {name}");
        let check = match (std::fs::metadata(path), probe::free_bytes(&house.settings.state_dir)) {
            (Ok(file), Ok(free)) if free < file.len() => bad(
                what,
                format!("the state directory has {free} bytes left, the copy takes {}", file.len()),
                "free space there, or set `state_dir` to a place that has more",
            ),
            (Ok(_), Ok(_)) => good(what, "the state directory has room for the copy"),
            // Those who look at the source and at the state directory say it.
            (Err(_), _) | (_, Err(_)) => return None,
        };
        Some((Kind::Config, check))
    });
    found.collect()
}
