//! Who did what, when; and whether the record of it is what it was.

use super::audit::Untrue;
use super::{
    Anchor, Context, HistoryOptions, HistoryReport, OpsError, SignedReport, Workspace, permit,
};
use crate::format::canonical::CanonicalError;
use crate::format::names::ModelName;
use crate::format::record::Record;
use crate::format::signature::PublicKey;
use crate::governance::Action;
use crate::store::{Head, Line, StoreError};

impl Workspace {
    /// Records, oldest first. All records only for who owns the root: they speak of every model.
    pub(super) fn history(
        &self,
        context: &Context,
        options: &HistoryOptions,
    ) -> Result<HistoryReport, OpsError> {
        let (seqs, head): (Vec<u64>, _) = {
            let state = self.state();
            let seqs = match &options.model {
                None => {
                    self.permit_administration_of(&state, context)?;
                    (1..=state.head().seq).collect()
                }
                Some(name) => {
                    permit(&state, context, name, Action::Read)?;
                    let model = state.model(name).expect("permitted, so it is there");
                    model.body()?.records.seqs().to_vec()
                }
            };
            (seqs, state.head())
        };
        let mut records = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let line = self.line_for(options.model.as_ref(), seq)?;
            let value = serde_json::from_slice(&line).map_err(|source| {
                let source = CanonicalError::from(source).into();
                StoreError::Record { seq, source }
            })?;
            records.push(value);
        }
        let verified = options.verify;
        let signed = if verified { self.check_chain(head, options)? } else { None };
        let anchor = Anchor { seq: head.seq, digest: head.digest };
        Ok(HistoryReport { records, seq: head.seq, head: head.digest, anchor, verified, signed })
    }

    /// The line of a record, as the history of a model has it, or that of the store.
    pub(super) fn line_for(
        &self,
        model: Option<&ModelName>,
        seq: u64,
    ) -> Result<Vec<u8>, OpsError> {
        let line = self.store.record_line(seq)?;
        let Some(model) = model.filter(|_| names_several(&line)) else { return Ok(line) };
        let parsed = Record::parse(&line);
        let (record, _) = parsed.map_err(|source| StoreError::Record { seq, source })?;
        Ok(record.part_for(model).unwrap_or(line))
    }

    /// Reads all records from their files, as what the catalog remembers proves nothing: each is chained to
    /// the one before, those that are known to have been there are there, the right ones are signed, and
    /// they add up to what is shown.
    fn check_chain(
        &self,
        head: Head,
        options: &HistoryOptions,
    ) -> Result<Option<SignedReport>, OpsError> {
        let known = Anchor { seq: head.seq, digest: head.digest };
        let known: Vec<Anchor> = options.anchor.into_iter().chain([known]).collect();
        let mut seen = vec![false; known.len()];
        let mut signatures = Signatures::new(&options.keys);
        let audit = self.audit(|line| {
            for (anchor, seen) in known.iter().zip(&mut seen) {
                *seen |= anchor.seq == line.record.seq && anchor.digest == line.digest;
            }
            signatures.look_at(line);
        })?;
        if let Some((anchor, _)) = known.iter().zip(&seen).find(|(_, seen)| !**seen) {
            let why = "it is not the record that was written down: the end of the history was cut off, or \
                       it was written anew";
            return Err(StoreError::Chain { seq: anchor.seq, why }.into());
        }
        let signed = signatures.answer(head.seq)?;
        if let (Some(signed), Some((seq, key))) = (&signed, audit.checkpoint)
            && (signed.first <= seq || key.is_some())
            && !key.is_some_and(|key| options.keys.contains(&key))
        {
            let why = key.map_or_else(
                || "it has no signature, or one of something else".to_owned(),
                |key| format!("it is signed with another key, {key}"),
            );
            return Err(StoreError::CheckpointSignature { why }.into());
        }
        match audit.untrue.into_iter().next() {
            None => Ok(signed),
            // Who may read one model need not know of others.
            Some(Untrue { place, .. }) if options.model.is_some() => {
                let what = "`modelfs verify` has it".to_owned();
                Err(StoreError::Untrue { place, what }.into())
            }
            Some(Untrue { place, what }) => Err(StoreError::Untrue { place, what }.into()),
        }
    }
}

/// Whether a line can be about more models than one: only then it is looked into.
fn names_several(line: &[u8]) -> bool {
    const NAME: &[u8] = b"\"model\":";
    line.windows(NAME.len()).filter(|window| *window == NAME).nth(1).is_some()
}

/// Follows a history and looks at who signed it. Once a record is signed, all later ones must be.
struct Signatures<'a> {
    /// Those that count; with none of them nothing is looked at.
    keys: &'a [PublicKey],
    first: Option<u64>,
    /// The first record that is not as it must be, and why.
    wrong: Option<(u64, String)>,
}

impl<'a> Signatures<'a> {
    fn new(keys: &'a [PublicKey]) -> Self {
        Self { keys, first: None, wrong: None }
    }

    fn look_at(&mut self, line: &Line) {
        let record = &line.record;
        if self.keys.is_empty() || self.wrong.is_some() {
            return;
        }
        let why = match &record.signature {
            None if self.first.is_none() => return,
            None => "it has no signature, and an earlier one has".to_owned(),
            Some(signature) if !self.keys.contains(&signature.key) => {
                format!("it is signed with another key, {}", signature.key)
            }
            Some(signature) if !record.is_signed_as(signature) => {
                "the signature is of something else".to_owned()
            }
            Some(_) => {
                self.first.get_or_insert(record.seq);
                return;
            }
        };
        self.wrong = Some((record.seq, why));
    }

    fn answer(self, newest: u64) -> Result<Option<SignedReport>, StoreError> {
        match (self.wrong, self.first) {
            (Some((seq, why)), _) => Err(StoreError::Signature { seq, why }),
            (None, Some(first)) => Ok(Some(SignedReport { first, records: newest + 1 - first })),
            (None, None) if self.keys.is_empty() => Ok(None),
            (None, None) => {
                let why = "neither it nor any record before it has a signature".to_owned();
                Err(StoreError::Signature { seq: newest, why })
            }
        }
    }
}
