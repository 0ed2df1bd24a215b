//! Why a node, an execution or a condition is as it is: every CamelCase reason that the status can carry.

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason as written in the status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The reason that the text names, if this version knows it.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a node is in its state. The runner reports those up to `NotExecuted`, the operator all others.
    NodeReason {
        /// The script exited with another code than 0, or was ended by a signal.
        ScriptFailed,
        /// The script ran longer than `executionDeadlineSeconds`.
        ExecutionDeadlineExceeded,
        /// A dependency could not be installed; the script was not run.
        DependencyInstallFailed,
        /// The interpreter could not be started.
        InterpreterNotStarted,
        /// The mounted inputs are not those that the pod was made for; the script was not run.
        InputTampered,
        /// The kubelet started the pod a second time; the script was not run again.
        Restarted,
        /// The pod was told to end while the script ran.
        Interrupted,
        /// The runner had no session with the operator for too long and ended its pod to hand its results over; the
        /// repetition goes on in the next pod.
        NoSession,
        /// `execution` is `Paused`: the repetition goes on in another pod when it is `Active` again.
        Paused,
        /// The runner could not do its work, for example write to its folders.
        RunnerFailed,
        /// The script exited with a code that `exitCodes.success` has.
        ExitCodeSucceeds,
        /// The script exited with a code that `exitCodes.skipped` has.
        ExitCodeSkips,
        /// The result file does not hold one JSON value within the limits; the execution counts as it ended.
        ResultInvalid,
        /// Nothing was executed.
        NotExecuted,

        /// The memory limit was exceeded.
        OOMKilled,
        /// The pod was evicted: by a drain, or by its kubelet.
        Evicted,
        /// The pod made room for a more important one.
        Preempted,
        /// Somebody deleted the pod.
        PodDeleted,
        /// The pod vanished and left no answer.
        PodLost,
        /// `execution` is `Stopped`, or was when the pod was told to end: the node goes on in another pod when it is `Active`.
        Stopped,
        /// A newer run came first.
        Superseded,
        /// The run took longer than `activeDeadlineSeconds`.
        ActiveDeadlineExceeded,
        /// The node failed and is tried again after a pause.
        BackingOff,
        /// `rerun.nodeNames` leaves out the node, which had not ended.
        OutOfScope,
        /// The image could not be pulled within `podStartDeadlineSeconds`.
        ImagePullFailed,
        /// The pod did not start within `podStartDeadlineSeconds`.
        StartDeadlineExceeded,
        /// The container could not be created or started within `podStartDeadlineSeconds`.
        ContainerNotStarted,
        /// The kubelet refused the pod twice, also after the scheduler had placed it.
        PodRefused,
        /// The node was not Ready within `podStartDeadlineSeconds`.
        Unreachable,
        /// The runner did not end although all its executions must be over.
        Hung,
        /// The node is not Ready; it is waited for, or left out as `notReadyNodePolicy` says.
        NodeNotReady,
        /// The Node object is gone.
        NodeGone,
        /// No Node has the name.
        NodeNotFound,
        /// The node has a taint that is not tolerated.
        Tainted,
        /// `excludedNodeNames` has the node.
        Excluded,
        /// The node has the label by which it opts out.
        OptedOut,
        /// The node is cordoned, and `unschedulableNodePolicy` is `Skip`; or it was interrupted and stayed cordoned for too long.
        Unschedulable,
        /// The node began to match after the run began, and `newNodePolicy` is `Ignore`.
        NewNode,
        /// The node does not run Linux.
        UnsupportedOS,
        /// The container ended without a readable message.
        NoMessage,
        /// The runner was killed before it could report how the script ended.
        RunnerKilled,
        /// The node restarted while the pod ran.
        NodeRestarted,
        /// The pod was lost before its runner started; the next one replaces it.
        Replaced,
        /// The runner that was to go on with the run in its pod was not connected; a new pod replaces it.
        NotConnected,
        /// A pod with the same name is not ours.
        NameConflict,
        /// The node's entry was lost from the status.
        StatusLost,
    }
}

reasons! {
    /// Why a condition has its status.
    ConditionReason {
        /// The spec can be run.
        SpecAccepted,
        /// The spec contradicts itself or exceeds a limit.
        SpecInvalid,
        /// The object cannot be read by this operator.
        Unreadable,
        /// A privileged mode needs a namespace labelled for it.
        NamespaceNotPrivileged,
        /// The operator's flags do not allow the image.
        ImageNotAllowed,
        /// Even the shortest status of so many nodes would be too large.
        TooManyNodes,
        /// What a ConfigMap holds is not what the spec's SHA-256 says, or the pinned inputs of the run are lost and cannot be made again.
        InputChanged,
        /// A ConfigMap that the spec names is missing, has no label for it, or lacks the key.
        InputMissing,
        /// What a ConfigMap holds cannot be used: binary data, too long, empty.
        InputInvalid,
        /// No node matches.
        NoMatchingNodes,
        /// Nodes are still to be done.
        NodesPending,
        /// The API server refuses the pods.
        PodsRefused,
        /// Every desired node is done.
        AllNodesDone,
        /// Every desired node succeeded or was skipped.
        AllNodesSucceeded,
        /// Every desired node was skipped.
        AllNodesSkipped,
        /// Some desired node failed or is unknown.
        NodesFailed,
        /// More nodes failed or are unknown than `maxFailures` allows.
        ErrorBudgetExceeded,
        /// The run took longer than `activeDeadlineSeconds`.
        ActiveDeadlineExceeded,
        /// `execution` is `Paused`.
        Paused,
        /// `execution` is `Stopped`.
        Stopped,
        /// `execution` is `Active`.
        NotSuspended,
        /// The run has not ended.
        RunNotEnded,
        /// The run ended without a failure.
        NoFailure,
        /// The size limit of the status cost results.
        StatusSizeLimit,
        /// Every kept result stands in the status.
        NothingTruncated,
        /// All nodes gave the same answer.
        SameAnswer,
        /// All nodes that answered gave the same answer, and some have not answered, or never will.
        NotAllAnswered,
        /// Most nodes gave the same answer, and some another one.
        Outliers,
        /// No answer was given by enough nodes to say which ones differ.
        NoMajority,
        /// No node has answered.
        NothingToCompare,
        /// The admission policies that decide who may use privileged modes are not proven to hold.
        PolicyNotProven,
        /// A privileged spec was last written before those policies were known to hold.
        NotAdmitted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_camel_case_and_read_back() {
        for reason in NodeReason::ALL {
            assert_eq!(NodeReason::parse(reason.as_str()), Some(*reason));
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
        }
        for reason in ConditionReason::ALL {
            assert_eq!(ConditionReason::parse(reason.as_str()), Some(*reason));
        }
    }
}
