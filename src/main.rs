//! `bkp`: parse, settings, dispatch, render, exit code. No logic.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::Context as _;
use bkp::cli::{self, Cli, Ended, Hook, ParseExit};
use bkp::config::{Environment, Settings};
use bkp::ctx::{Cancel, Ctx, Monitor as _};
use bkp::error::Kind;
use bkp::exit;
use bkp::ops::report::Report;
use bkp::process;
use bkp::source::kinds;
use bkp::ui::{self, Progress, Style};
use bkp::wire::AppContext;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    // Started by ourselves, to work in a place of its own.
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(code) = kinds::serve(&words) {
        return code;
    }
    let hook = Hook::of(std::env::args_os());
    if let Some(hook) = hook {
        // What a server makes of the code of a panic is not what it means.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            told(panic);
            let code = hook.code(Ended::Failed(exit::code(Kind::Failed)));
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing of a hook outlives its process"
            )]
            std::process::exit(code.into());
        }));
    }
    // Before anything is read that is secret, and before there is a second thread.
    let hardened = process::harden();
    let environment = Environment::of_process();
    let style =
        |json, quiet, verbose| Style::of_process(json, quiet, verbose, environment.no_color());
    let ended = match cli::parse(std::env::args_os()) {
        Ok(cli) => {
            let style = style(cli.json(), cli.quiet(), cli.verbose());
            let hardened =
                hardened.context("cannot protect the memory of this process from others");
            let done = hardened.and_then(|()| run(cli, style, &environment));
            match done.and_then(|report| finish(style, &report)) {
                Ok(code) => Ended::Done(code),
                Err(error) => Ended::Failed(ui::fail(style, &error)),
            }
        }
        Err(ParseExit::Answer(text)) => {
            let printed = ui::answer(&text).map(|()| exit::DONE);
            Ended::Failed(
                printed.unwrap_or_else(|error| ui::fail(style(false, false, 0), &error.into())),
            )
        }
        Err(ParseExit::Mistake { coloured, plain, summary }) => {
            // The flag may stand before or behind the mistake.
            let json = std::env::args_os().any(|word| word == "--json");
            let style = style(json, false, 0);
            let text = if style.colour { &coloured } else { &plain };
            Ended::Failed(ui::mistake(style, text, &summary))
        }
    };
    let (Ended::Done(plain) | Ended::Failed(plain)) = ended;
    ExitCode::from(hook.map_or(plain, |hook| hook.code(ended)))
}

fn run(cli: Cli, style: Style, environment: &Environment) -> anyhow::Result<Report> {
    if let Some(report) = cli.run_alone() {
        return report;
    }
    let load = if cli.needs_no_file() { Settings::without_file } else { Settings::load };
    let settings = load(&cli.flags(), environment)?;
    process::hide_variables(settings.secret_variables());
    let cancel = Cancel::default();
    listen(&cancel)?;
    let progress = Arc::new(Progress::new(style));
    for warning in &settings.provenance.warnings {
        progress.warn(warning);
    }
    let confirm = ui::confirm(style, cli.yes(), cancel.clone());
    let ask = ui::ask(style, cancel.clone());
    let app = AppContext { settings, ctx: Ctx::new(cancel, progress), confirm, ask, layer: None };
    cli.run(&app).map_err(|error| app.ctx.attributed(error))
}

fn finish(style: Style, report: &Report) -> anyhow::Result<u8> {
    ui::report(style, report)
        .context("the command succeeded, but its report could not be printed to standard output")?;
    Ok(report.outcome.map_or(exit::DONE, exit::code))
}

/// Notes the first SIGINT or SIGTERM in the cell of `cancel`. Later ones change nothing: the run is
/// ending already, and may be killed without harm if it takes too long.
fn listen(cancel: &Cancel) -> io::Result<()> {
    let cell = cancel.cell();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let number = usize::try_from(signal).unwrap_or_default();
            // Fails if there was a signal before, which then stays.
            let _first = cell.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        }
    })?;
    Ok(())
}
