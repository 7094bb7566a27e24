//! Recording what checks of a version gave. The checks themselves are run by who asks for them.

use super::{Change, CheckOptions, Context, OpsError, VettingReport, Workspace, permit};
use crate::format::names::{At, Reference};
use crate::format::record::{CheckResult, Op};
use crate::governance::{Action, Power};

/// Longest output that is kept of a check, in bytes; of more, the end.
pub const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// Longest metrics of a check, in bytes of JSON.
const METRICS_BYTES_MAX: usize = 32 << 10;

impl Workspace {
    /// Records the result of a check. Gates go by it, so it takes the right to change the model, unless
    /// the policy says who may do what to it: then whoever reads it may, if they are named.
    ///
    /// # Errors
    /// `Option` for a result that does not fit into the history, `Gated` where the policy says no.
    pub(super) fn record_check(
        &self,
        context: &Context,
        options: &CheckOptions,
    ) -> Result<VettingReport, OpsError> {
        let CheckOptions { result } = options;
        check_size(result)?;
        let subject = &result.subject;
        let (model, at) = (subject.model.clone(), At::Version(subject.version));
        let reference = Reference { model, at };
        self.commit(context, |state, _| {
            let policy = self.policy(state)?;
            let is_named = policy.is_some_and(|policy| policy.allows_about(&subject.model));
            let needed = if is_named { Action::Read } else { Action::Write };
            permit(state, context, &subject.model, needed)?;
            let model = state.model(&subject.model).expect("permitted, so it is there");
            if let Err(forbidden) = self.permit_power(state, context, model, &Power::Check)? {
                return Ok(forbidden.into());
            }
            let found = self.subject(state, &reference)?;
            if found != *subject {
                let why = format!("`{reference}` is not the version that was checked");
                return Err(OpsError::Option { what: "the result", why });
            }
            Ok(Change::Record(Op::Check(Box::new(CheckResult::clone(result)))))
        })?;
        self.vetting(context, &reference)
    }
}

fn check_size(result: &CheckResult) -> Result<(), OpsError> {
    let metrics = serde_json::to_string(&(&result.metrics, &result.failures, &result.against));
    let metrics = metrics.map_or(usize::MAX, |text| text.len());
    if METRICS_BYTES_MAX < metrics {
        let why = format!("its metrics have {metrics} bytes, at most {METRICS_BYTES_MAX}");
        return Err(OpsError::Option { what: "the result", why });
    }
    if OUTPUT_BYTES_MAX < result.output.len() {
        let bytes = result.output.len();
        let why = format!("its output has {bytes} bytes, at most {OUTPUT_BYTES_MAX}");
        return Err(OpsError::Option { what: "the result", why });
    }
    Ok(())
}
