//! Merges what a runner reports with what is stored, entry by entry. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use scriptrunner_api::v1alpha1::Execution;

/// Union of two histories, sorted, newest last; of these the newest `limit`. Of two entries of the same execution the one
/// with more output stays, so that a cut report only ever adds.
///
/// **Invariant:** idempotent, commutative and associative: repeated, reordered or replayed reports change nothing.
pub fn merge_history(stored: &[Execution], snapshot: &[Execution], limit: usize) -> Vec<Execution> {
    let mut union: BTreeMap<(u64, u32, u64), &Execution> = BTreeMap::new();
    for execution in stored.iter().chain(snapshot) {
        match union.entry(execution.key()) {
            Entry::Vacant(place) => {
                place.insert(execution);
            }
            Entry::Occupied(mut place) => {
                if says_more(execution, place.get()) {
                    place.insert(execution);
                }
            }
        }
    }
    let old = union.len().saturating_sub(limit);
    union.into_values().skip(old).cloned().collect()
}

/// A strict total order over the entries of one execution: the choice must not depend on which came first.
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
        result,
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
        result.is_some(),
    ];
    (
        execution.output_bytes(),
        known.into_iter().filter(|is_known| *is_known).count(),
        // From here on only to be definite. The shorter time is the one that the runner cut to whole seconds.
        Reverse(start_time),
        (duration_millis, exit_code, signal, reason),
        (stdout, stderr, stdout_bytes, stderr_bytes, digest),
        result.as_ref().map(ToString::to_string),
    )
}

#[cfg(test)]
mod tests;
