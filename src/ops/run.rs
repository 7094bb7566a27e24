//! One request, one report: the table from the words of the command line and the socket to verbs.

use super::{Context, OpsError, Progress, Report, Request, VettingReport, Workspace, inspect};

impl Workspace {
    /// Does what is asked.
    ///
    /// # Errors
    /// Those of the verb.
    pub fn run(
        &self,
        context: &Context,
        request: Request,
        progress: &dyn Progress,
    ) -> Result<Report, OpsError> {
        let report = match request {
            Request::Snapshot(options) => {
                Report::Snapshot(self.snapshot(context, &options, progress)?)
            }
            Request::Import(options) => Report::Import(self.import(context, &options, progress)?),
            Request::List { model: None } => Report::Models(self.list_models(context)?),
            Request::List { model: Some(model) } => {
                let versions = self.list_versions(context, &model)?;
                Report::Versions { model, versions }
            }
            Request::Show { reference } => {
                let (summary, metadata) = self.show(context, &reference)?;
                Report::Version { summary: Box::new(summary), metadata }
            }
            Request::Metadata { reference, offset } => {
                Report::Metadata { part: self.metadata_part(context, &reference, offset)? }
            }
            Request::Diff(options) => {
                Report::Diff(Box::new((*self.diff(context, &options, progress)?).clone()))
            }
            Request::Log(options) => Report::Log(self.log(context, &options)?),
            Request::History(options) => Report::History(self.history(context, &options)?),
            Request::Stats(options) => Report::Stats(Box::new(self.stats(context, &options)?)),
            Request::Status => Report::Status(Box::new(self.status(context)?)),
            Request::Promote(options) => Report::Retarget(self.promote(context, &options)?),
            Request::Plan(options) => Report::Plan(self.plan(context, &options)?),
            Request::Approve(options) => vetting(self.approve(context, &options)?),
            Request::Approvals { reference } => vetting(self.vetting(context, &reference)?),
            Request::Revoke(options) => vetting(self.revoke(context, &options)?),
            Request::Mark(options) => vetting(self.mark(context, &options)?),
            Request::Check(options) => vetting(self.record_check(context, &options)?),
            Request::PolicySet { text } => Report::Policy(self.set_policy(context, &text)?),
            Request::PolicyShow => Report::Policy(self.show_policy(context)?),
            Request::BreakGlass(options) => {
                Report::BreakGlass(self.break_glass(context, &options)?)
            }
            Request::Rollback(options) => Report::Retarget(self.rollback(context, &options)?),
            Request::AliasList { model } => {
                let aliases = self.list_aliases(context, &model)?;
                Report::Aliases { model, aliases }
            }
            Request::AliasRemove { model, alias } => {
                Report::Retarget(self.remove_alias(context, &model, &alias)?)
            }
            Request::Export(options) => Report::Export(self.export(context, &options, progress)?),
            Request::Statement { reference } => {
                Report::Statement(self.statement(context, &reference)?)
            }
            Request::Inspect(options) => {
                let found = self.inspect(context, &options, inspect::ANSWER_BYTES_MAX, progress)?;
                Report::Inspect(Box::new(found))
            }
            Request::Warm(options) => Report::Warm(self.warm(context, &options, progress)?),
            Request::Verify(options) => Report::Verify(self.verify(context, &options, progress)?),
            Request::Repair => Report::Repair(self.repair(context)?),
            Request::DebugCatalog => Report::Catalog(self.catalog(context)?),
        };
        Ok(report)
    }
}

fn vetting(report: VettingReport) -> Report {
    Report::Vetting(Box::new(report))
}
