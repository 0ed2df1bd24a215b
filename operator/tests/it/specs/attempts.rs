//! Specs about deadlines, attempts, interruptions, reruns and cleaning up that are refused, and why.

/// A spec that is refused, as YAML, and the words that say why.
pub(super) const REFUSED: [(&str, &str); 59] = [
    (
        "{script: x, nodeNames: [a], activeDeadlineSeconds: 0}",
        "spec.activeDeadlineSeconds in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], activeDeadlineSeconds: 31536001}",
        "spec.activeDeadlineSeconds in body should be less than or equal to 31536000",
    ),
    (
        "{script: x, nodeNames: [a], activeDeadlineSeconds: 1.5}",
        "spec.activeDeadlineSeconds in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], activeDeadlineSeconds: 1h}",
        "spec.activeDeadlineSeconds in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], activeDeadlineSeconds: 60, repeat: {periodSeconds: 1}}",
        "activeDeadlineSeconds cannot be combined with an endless repeat, which has no end; set repeat.count or remove activeDeadlineSeconds",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: -1}",
        "spec.backoffLimit in body should be greater than or equal to 0",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 101}",
        "spec.backoffLimit in body should be less than or equal to 100",
    ),
    ("{script: x, nodeNames: [a], backoffLimit: 0.5}", "spec.backoffLimit in body must be of type integer"),
    ("{script: x, nodeNames: [a], backoffLimit: '3'}", "spec.backoffLimit in body must be of type integer"),
    (
        "{script: x, nodeNames: [a], backoffLimit: 1, repeat: {periodSeconds: 1}}",
        "backoffLimit cannot be combined with repeat, which runs the script again anyway; remove one of them",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 1, repeat: {periodSeconds: 1, count: 2}}",
        "backoffLimit cannot be combined with repeat",
    ),
    ("{script: x, nodeNames: [a], exitCodes: [2]}", "spec.exitCodes in body must be of type object"),
    ("{script: x, nodeNames: [a], exitCodes: {failed: [2]}}", r#"unknown field "spec.exitCodes.failed""#),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: 2}}",
        "spec.exitCodes.success in body must be of type array",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: [0]}}",
        "spec.exitCodes.success[0] in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: [1, 256]}}",
        "spec.exitCodes.success[1] in body should be less than or equal to 255",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: ['2']}}",
        "spec.exitCodes.success[0] in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: [null]}}",
        "spec.exitCodes.success[0] in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33]}}",
        "spec.exitCodes.success: Too many: 33: must have at most 32 items",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {skipped: [0]}}",
        "spec.exitCodes.skipped[0] in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {skipped: [256]}}",
        "spec.exitCodes.skipped[0] in body should be less than or equal to 255",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 1, exitCodes: {retry: [0]}}",
        "spec.exitCodes.retry[0] in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 1, exitCodes: {retry: [-1]}}",
        "spec.exitCodes.retry[0] in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {success: [2, 3], skipped: [4, 3]}}",
        "an exit code stands in exitCodes.success and in exitCodes.skipped; remove it from one of them",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 1, exitCodes: {success: [2], retry: [2]}}",
        "an exit code stands in exitCodes.success and in exitCodes.retry; remove it from one of them",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 1, exitCodes: {skipped: [2], retry: [2]}}",
        "an exit code stands in exitCodes.skipped and in exitCodes.retry; remove it from one of them",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {retry: [2]}}",
        "exitCodes.retry needs backoffLimit: 1 or more, which says how often a node is tried again",
    ),
    (
        "{script: x, nodeNames: [a], backoffLimit: 0, exitCodes: {retry: [2]}}",
        "exitCodes.retry needs backoffLimit: 1 or more",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {skipped: [2]}, repeat: {periodSeconds: 1, count: 2}}",
        "exitCodes.skipped cannot be combined with repeat; remove one of them",
    ),
    (
        "{script: x, nodeNames: [a], exitCodes: {skipped: [2]}, repeat: {periodSeconds: 1}}",
        "exitCodes.skipped cannot be combined with repeat",
    ),
    (
        "{script: x, nodeNames: [a], interruptionPolicy: Ignore}",
        r#"spec.interruptionPolicy: Unsupported value: "Ignore": supported values: "Report", "Retry""#,
    ),
    (
        "{script: x, nodeNames: [a], interruptionPolicy: retry}",
        r#"spec.interruptionPolicy: Unsupported value: "retry""#,
    ),
    ("{script: x, nodeNames: [a], interruptionPolicy: ''}", "spec.interruptionPolicy: Unsupported value"),
    (
        "{script: x, nodeNames: [a], interruptionPolicy: true}",
        "spec.interruptionPolicy in body must be of type string",
    ),
    (
        "{script: x, nodeNames: [a], interruptionPolicy: Report, repeat: {periodSeconds: 1}}",
        "interruptionPolicy: Report cannot be combined with an endless repeat, which always goes on; set repeat.count or remove interruptionPolicy",
    ),
    ("{script: x, nodeNames: [a], rerun: {}}", "spec.rerun.at: Required value"),
    ("{script: x, nodeNames: [a], rerun: {at: null}}", "spec.rerun.at: Required value"),
    ("{script: x, nodeNames: [a], rerun: {scope: Failed}}", "spec.rerun.at: Required value"),
    (
        "{script: x, nodeNames: [a], rerun: '2026-01-01T00:00:00Z'}",
        "spec.rerun in body must be of type object",
    ),
    ("{script: x, nodeNames: [a], rerun: {at: now}}", "spec.rerun.at in body must be of type date-time"),
    ("{script: x, nodeNames: [a], rerun: {at: ''}}", "spec.rerun.at in body must be of type date-time"),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01'}}",
        "spec.rerun.at in body must be of type date-time",
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00'}}",
        "spec.rerun.at in body must be of type date-time",
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: 1767225600}}",
        "spec.rerun.at in body must be of type date-time",
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', scope: Stopped}}",
        r#"spec.rerun.scope: Unsupported value: "Stopped": supported values: "All", "Failed", "Unknown", "Skipped""#,
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', nodeNames: []}}",
        "spec.rerun.nodeNames in body should have at least 1 items",
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', nodeNames: ['']}}",
        "spec.rerun.nodeNames[0] in body should be at least 1 chars long",
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', nodeNames: a}}",
        "spec.rerun.nodeNames in body must be of type array",
    ),
    (
        "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', nodes: [a]}}",
        r#"unknown field "spec.rerun.nodes""#,
    ),
    (
        "{script: x, nodeNames: [a], updatePolicy: Never}",
        r#"spec.updatePolicy: Unsupported value: "Never": supported values: "Rerun", "OnRerun""#,
    ),
    ("{script: x, nodeNames: [a], updatePolicy: onRerun}", "spec.updatePolicy: Unsupported value"),
    (
        "{script: x, nodeNames: [a], ttlSecondsAfterFinished: -1}",
        "spec.ttlSecondsAfterFinished in body should be greater than or equal to 0",
    ),
    (
        "{script: x, nodeNames: [a], ttlSecondsAfterFinished: 31536001}",
        "spec.ttlSecondsAfterFinished in body should be less than or equal to 31536000",
    ),
    (
        "{script: x, nodeNames: [a], ttlSecondsAfterFinished: 1.5}",
        "spec.ttlSecondsAfterFinished in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], ttlSecondsAfterFinished: 10m}",
        "spec.ttlSecondsAfterFinished in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], ttlSecondsAfterFinished: 60, repeat: {periodSeconds: 1}}",
        "ttlSecondsAfterFinished cannot be combined with an endless repeat, which never finishes; set repeat.count or remove ttlSecondsAfterFinished",
    ),
    (
        "{script: x, nodeNames: [a], podCleanupPolicy: OnFailure}",
        r#"spec.podCleanupPolicy: Unsupported value: "OnFailure": supported values: "OnSuccess", "Always", "Never""#,
    ),
    ("{script: x, nodeNames: [a], podCleanupPolicy: always}", "spec.podCleanupPolicy: Unsupported value"),
    (
        "{script: x, nodeNames: [a], podCleanupPolicy: false}",
        "spec.podCleanupPolicy in body must be of type string",
    ),
];

/// Specs that are accepted; together they use every one of these fields.
pub(super) const ACCEPTED: [&str; 10] = [
    "{script: x, nodeNames: [a], activeDeadlineSeconds: null, backoffLimit: null, exitCodes: null, interruptionPolicy: null, rerun: null, updatePolicy: null, ttlSecondsAfterFinished: null, podCleanupPolicy: null}",
    "{script: x, nodeNames: [a], exitCodes: {success: null, skipped: null}, rerun: {at: '2026-01-01T00:00:00Z', scope: null, nodeNames: null}}",
    "{script: x, nodeNames: [a], activeDeadlineSeconds: 1, backoffLimit: 100, exitCodes: {success: [1], skipped: [2, 255], retry: [3]}, interruptionPolicy: Report, ttlSecondsAfterFinished: 0, podCleanupPolicy: Never}",
    "{script: x, nodeNames: [a], activeDeadlineSeconds: 31536000, backoffLimit: 0, exitCodes: {}, interruptionPolicy: Retry, ttlSecondsAfterFinished: 31536000, podCleanupPolicy: Always}",
    "{script: x, nodeNames: [a], repeat: {periodSeconds: 1, count: 2}, activeDeadlineSeconds: 60, backoffLimit: 0, exitCodes: {success: [2]}, interruptionPolicy: Report, ttlSecondsAfterFinished: 60, podCleanupPolicy: OnSuccess}",
    "{script: x, nodeNames: [a], repeat: {periodSeconds: 1}, interruptionPolicy: Retry, exitCodes: {success: [2]}, updatePolicy: Rerun}",
    "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', scope: All}, updatePolicy: OnRerun}",
    "{script: x, nodeNames: [a], rerun: {at: '2126-01-01T00:00:00.123456+02:00', scope: Failed, nodeNames: [b]}}",
    "{script: x, nodeNames: [a], rerun: {at: '1970-01-01T00:00:00Z', scope: Unknown, nodeNames: [a, c]}, execution: Paused}",
    "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, rerun: {at: '2026-01-01T00:00:00Z', scope: Skipped}, backoffLimit: 1, interruptionPolicy: Retry}",
];
