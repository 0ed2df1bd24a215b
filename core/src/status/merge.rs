//! Merges what a runner reports with what is stored, entry by entry. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use scriptrunner_api::v1alpha1::Execution;

/// Union of two histories, sorted, newest last; of these the newest `limit`. Of two entries of the same execution the one
/// with more output stays, and any result with it, so that a cut report only ever adds.
///
/// **Invariant:** idempotent, commutative and associative: repeated, reordered or replayed reports change nothing.
pub fn merge_history(stored: &[Execution], snapshot: &[Execution], limit: usize) -> Vec<Execution> {
    let mut union: BTreeMap<(u64, u32, u64), Best<'_>> = BTreeMap::new();
    for execution in stored.iter().chain(snapshot) {
        match union.entry(execution.key()) {
            Entry::Vacant(place) => {
                place.insert(Best { of: execution, result_of: execution });
            }
            Entry::Occupied(mut place) => place.get_mut().take_in(execution),
        }
    }
    let old = union.len().saturating_sub(limit);
    union.into_values().skip(old).map(Best::united).collect()
}

/// What is best of the entries of one execution.
struct Best<'a> {
    of: &'a Execution,
    result_of: &'a Execution,
}

impl<'a> Best<'a> {
    fn take_in(&mut self, execution: &'a Execution) {
        if says_more(execution, self.of) {
            self.of = execution;
        }
        let result = |execution: &Execution| {
            (execution.result.as_ref().map(ToString::to_string), execution.result_digest.clone())
        };
        let differs = execution.result != self.result_of.result
            || execution.result_digest != self.result_of.result_digest;
        if differs && result(execution) > result(self.result_of) {
            self.result_of = execution;
        }
    }

    fn united(self) -> Execution {
        let Self { of, result_of } = self;
        Execution {
            result: result_of.result.clone(),
            result_digest: result_of.result_digest.clone(),
            ..of.clone()
        }
    }
}

/// A strict total order over the entries of one execution, whatever their results: the choice must not depend on which came first.
fn says_more(left: &Execution, right: &Execution) -> bool {
    left != right && rank(left) > rank(right)
}

fn rank(execution: &Execution) -> impl Ord + '_ {
    let Execution {
        run: _,
        attempt: _,
        serial: _,
        start_time,
        duration_millis,
        exit_code,
        signal,
        reason,
        stdout,
        stderr,
        stdout_bytes,
        stderr_bytes,
        digest,
        result: _,
        result_digest: _,
    } = execution;
    let known = [
        start_time.is_some(),
        duration_millis.is_some(),
        exit_code.is_some(),
        signal.is_some(),
        !reason.is_empty(),
        stdout_bytes.is_some(),
        stderr_bytes.is_some(),
        !digest.is_empty(),
    ];
    (
        execution.output_bytes(),
        known.into_iter().filter(|is_known| *is_known).count(),
        // From here on only to be definite. The shorter time is the one that the runner cut to whole seconds.
        Reverse(start_time),
        (duration_millis, exit_code, signal, reason),
        (stdout, stderr, stdout_bytes, stderr_bytes, digest),
    )
}

#[cfg(test)]
mod tests;
