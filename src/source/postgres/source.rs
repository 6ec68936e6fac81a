//! What a server does as a source.

use std::time::Duration;

use serde_json::Value;

use super::archive_state::ArchiveState;
use super::capture;
use super::checks;
use super::configured::Server;
use super::dump;
use super::logs::shipping::PostgresLog;
use super::record::{BaseRecord, Increments, identity};
use super::tenant;
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::health::LogLag;
use crate::domain::manifest::Identity;
use crate::error::{Fault, Kind};
use crate::pipeline::objects::ObjectSink;
use crate::source::logs::{LogSource, OwnEvents};
use crate::source::{CaptureRequest, Captured, Check, DrillTools, ExportRequest, Source};

/// How long a server may take to say how far its log is archived: nobody's status waits for one that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

impl Source for Server {
    fn identity(&self, ctx: &Ctx) -> anyhow::Result<Identity> {
        let refused = match self.replication(ctx) {
            Ok(mut connection) => {
                let found = connection.identify_system()?;
                return Ok(identity(&found.system_id.to_string()));
            }
            Err(error) => error,
        };
        // A role that makes exports only need not have REPLICATION.
        let system = "select system_identifier::text from pg_catalog.pg_control_system()";
        let asked = self.sql(ctx).and_then(|mut sql| Ok(sql.query_value(system)?));
        asked.map(|system| identity(&system)).map_err(|_also| refused)
    }

    fn check_parent(&self, record: &Value, ctx: &Ctx) -> anyhow::Result<()> {
        let refuse = |message: String| Fault::new(Kind::Refused, message);
        if dump::is_dump(record) {
            let message = "exports of PostgreSQL have no increments: each is a full one";
            return Err(refuse(message.to_owned()).hint("omit --scope").into());
        }
        let parent = BaseRecord::read(record)
            .map_err(|error| refuse(format!("its record cannot be read: {error}")))?;
        let mut connection = self.replication(ctx)?;
        let facts = self.facts(&mut connection, ctx)?;
        if parent.system != facts.system {
            let message =
                format!("it is of the cluster {}, not of {}", parent.system, facts.system);
            return Err(refuse(message).into());
        }
        if parent.major() != facts.version_number / 10_000 {
            let message =
                format!("it is of version {}, the server is {}", parent.version, facts.version);
            return Err(refuse(message).into());
        }
        let today = self.increments(&facts)?;
        if parent.increments != today || today == Increments::Off {
            let message =
                "its chain tells changed blocks in another way than is configured or possible now";
            return Err(refuse(message.to_owned()).into());
        }
        Ok(())
    }

    fn capture(
        &self,
        request: &CaptureRequest<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        capture::capture(self, request, out, ctx)
    }

    fn export(
        &self,
        request: &ExportRequest<'_>,
        out: &mut dyn ObjectSink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        dump::export(self, request, out, ctx)
    }

    fn check(&self, tools: &DrillTools, ctx: &Ctx) -> Vec<Check> {
        let mut found = checks::checks(self, ctx);
        found.extend(dump::check(self, tools.postgres.as_deref(), ctx));
        found.extend(tenant::check(self, ctx));
        found
    }

    fn log_lag(&self, ctx: &Ctx) -> anyhow::Result<Option<LogLag>> {
        // Without one, the environment of whoever asks would choose a server.
        if self.conninfo.is_empty() {
            return Ok(None);
        }
        let ctx = &ctx.within(ANSWER_WITHIN);
        Ok(ArchiveState::ask(&mut self.sql(ctx)?, &self.logs.slot)?.lag())
    }

    fn log(
        &self,
        mode: Option<&str>,
        _own: Option<OwnEvents>,
    ) -> anyhow::Result<Box<dyn LogSource>> {
        Ok(Box::new(PostgresLog::open(self, mode)?))
    }
}
