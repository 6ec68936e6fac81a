//! What a base backup says of itself, beside the files.

use std::io::Read;

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::postgres::file_list::FileList;
use crate::source::postgres::layout::{LAYOUT_MEMBER, Layout, MANIFEST_MEMBER};

/// What two of the members of a base backup say of the others.
pub(super) struct Contents {
    /// Folders, and the paths of members that could not have theirs as a name.
    pub(super) layout: Layout,
    /// The server's list of files.
    pub(super) list: FileList,
}

impl Contents {
    /// Shows every other member of a backup to `visit`: its name, its size in bytes and what is in it.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the backup is not what it was; what `visit` and the store fail with.
    pub(super) fn read(
        link: &BackupReader<'_>,
        ctx: &Ctx,
        visit: &mut dyn FnMut(&str, u64, &mut dyn Read) -> anyhow::Result<()>,
    ) -> anyhow::Result<Contents> {
        let broken =
            |what: String| Fault::new(Kind::Integrity, format!("the base backup has {what}"));
        let (mut layout, mut list) = (None, None);
        link.entries(ctx, &mut |member, size, body| {
            ctx.cancel.check()?;
            match member {
                LAYOUT_MEMBER => layout = Some(Layout::read(body)?),
                MANIFEST_MEMBER => {
                    let mut bytes = Vec::new();
                    body.read_to_end(&mut bytes)?;
                    let parsed = FileList::parse(&bytes);
                    list = Some(
                        parsed.map_err(|fault| Fault::new(Kind::Integrity, fault.to_string()))?,
                    );
                }
                _ => visit(member, size, body)?,
            }
            Ok(())
        })?;
        let layout = layout.ok_or_else(|| broken(format!("no {LAYOUT_MEMBER}")))?;
        let list = list.ok_or_else(|| broken(format!("no {MANIFEST_MEMBER}")))?;
        Ok(Contents { layout, list })
    }
}
