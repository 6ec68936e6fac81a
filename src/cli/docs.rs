//! Man page and completions, generated from the same clap structs as `--help`. They are checked in; a
//! test regenerates and compares them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::completions;
use crate::error::Kind;
use crate::exit;
use crate::ops::report::Report;

/// Write the man page and shell completions to a folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder in which `man/` and `completions/` are created
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The files generated from `command`: path below the repository, and content.
///
/// # Errors
/// None in practice: they are written to memory.
pub(super) fn files(command: &Command) -> io::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("man/bkp.1", man_page(command)?),
        ("completions/bkp.bash", completions::script(Shell::Bash, command)),
        ("completions/_bkp", completions::script(Shell::Zsh, command)),
        ("completions/bkp.fish", completions::script(Shell::Fish, command)),
    ])
}

pub(super) fn run(args: &Args, command: &Command) -> anyhow::Result<Report> {
    #[derive(serde::Serialize)]
    struct Body {
        files: Vec<String>,
    }
    let mut written = Vec::new();
    for (path, content) in files(command)? {
        let path = args.folder.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        File::create(&path)?.write_all(content.as_bytes())?;
        written.push(path.display().to_string());
    }
    let text = written.join("\n");
    Report::done("bkp.help-files/1", &Body { files: written }, text)
}

fn man_page(command: &Command) -> io::Result<String> {
    // Only bkp's own version: those of the engines differ between builds.
    let root = command.clone().version(env!("CARGO_PKG_VERSION")).after_help("");
    let mut page = Vec::new();
    let man = Man::new(root.clone()).title("BKP").manual("bkp").source("bkp 0.1.0").date("");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        subcommand(&mut page, command, "bkp")?;
    }
    page.write_all(exit_codes().as_bytes())?;
    page.write_all(CLOSING.as_bytes())?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// One section per subcommand that can be run; its own sections become subsections.
fn subcommand(page: &mut Vec<u8>, command: &Command, parent: &str) -> io::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|inner| subcommand(page, inner, &name));
    }
    let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone().bin_name(name.clone()).after_help(""));
    let mut text = Vec::new();
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(".SH ", ".SS ");
    // Every section of clap_mangen opens with the same two lines of groff setup.
    writeln!(page, ".SH \"{}\"\n{text}", name.to_uppercase())?;
    for line in example.lines() {
        writeln!(page, ".br\n{}", escape(line))?;
    }
    Ok(())
}

fn exit_codes() -> String {
    let line = |code: u8, meaning: &str| format!(".TP\n\\fB{code}\\fR\n{}\n", escape(meaning));
    let kinds = Kind::ALL.iter().map(|kind| line(exit::code(*kind), exit::meaning(*kind)));
    let done = line(exit::DONE, "success: everything requested was done and confirmed");
    format!(".SH \"EXIT STATUS\"\n{done}{}", kinds.collect::<String>())
}

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Sections of the man page that clap does not generate.
const CLOSING: &str = r#".SH ENVIRONMENT
.TP
\fBBKP_CONFIG\fR
The configuration file, if \-\-config is not given.
.TP
\fBBKP_STORE\fR
The store, if \-\-store is not given.
.TP
\fBBKP_KEY\fR
One key, if \-\-key is not given.
.TP
\fBBKP_TRIGGER\fR, \fBBKP_JOB\fR
What started the run (manual, scheduled or hook) and for which job; kept in the record of the run.
\fBbkp run\fR sets both for the runs it starts.
.TP
\fBSTATE_DIRECTORY\fR, \fBXDG_STATE_HOME\fR
Where caches and the local lock are kept, unless configured.
.TP
\fBNO_COLOR\fR
If not empty, output has no colour.
.SH FILES
.TP
\fI$XDG_CONFIG_HOME/bkp/bkp.toml\fR, \fI~/.config/bkp/bkp.toml\fR, \fI/etc/bkp/bkp.toml\fR
The configuration; the first that exists is used. \fBbkp config schema\fR describes every key.
.SH "SEE ALSO"
\fBbkp\-format\fR(5), which also describes how to restore without bkp.
"#;
