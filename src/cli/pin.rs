//! `bkp pin`, `bkp unpin` and `bkp note`.

use crate::cmd::pin::Options;
use crate::ops::annotations::AnnotationKind;

/// Pin a backup: retention keeps it and everything it builds on
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: see bkp(1).\nExample: bkp pin 01935a3c --note 'end of the year'"
)]
pub(super) struct PinArgs {
    /// Backup id, or a unique prefix of it
    #[arg(value_name = "ID")]
    id: String,

    /// Reason, kept beside the backup
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
}

/// Remove the pin from a backup
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: see bkp(1).\nExample: bkp unpin 01935a3c")]
pub(super) struct UnpinArgs {
    #[command(flatten)]
    pin: PinArgs,
}

/// Attach a note to a backup
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: see bkp(1).\nExample: bkp note 01935a3c 'before the migration'"
)]
pub(super) struct NoteArgs {
    /// Backup id, or a unique prefix of it
    #[arg(value_name = "ID")]
    id: String,

    /// Text of the note
    #[arg(value_name = "TEXT")]
    text: String,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
}

impl PinArgs {
    fn options(self, word: AnnotationKind) -> Options {
        let PinArgs { id, note, dry_run } = self;
        Options { id, word, note, dry_run }
    }
}

impl From<PinArgs> for Options {
    fn from(args: PinArgs) -> Options {
        args.options(AnnotationKind::Pin)
    }
}

impl From<UnpinArgs> for Options {
    fn from(args: UnpinArgs) -> Options {
        args.pin.options(AnnotationKind::Unpin)
    }
}

impl From<NoteArgs> for Options {
    fn from(args: NoteArgs) -> Options {
        let NoteArgs { id, text, dry_run } = args;
        Options { id, word: AnnotationKind::Note, note: Some(text), dry_run }
    }
}
