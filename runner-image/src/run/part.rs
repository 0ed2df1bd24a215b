//! One part of a run: settle environment and command line, install, then execute as often as told.

use std::{ffi::OsString, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use rustix::event::{PollFd, PollFlags};
use scriptrunner_api::{
    labels, pinned::PinnedRepeat, reason::NodeReason, session::RunOrder, v1alpha1::StopOn,
};

use super::Runner;
use crate::{
    args::{Environment, Remaining, RunArgs},
    folders,
    inputs::Inputs,
    install::Wanted,
    interpreter,
    ledger::End,
    log,
    outcome::{self, Begun},
    pacing, poll,
    process::{self, Job, Limits, Outlet},
    program, result_file,
};

/// What is to be done: by the pod's arguments, or by an order that came over the session.
pub(super) struct Part {
    pub(super) run: u64,
    pub(super) attempt: u32,
    pub(super) history_limit: usize,
    first_serial: u64,
    remaining: Remaining,
    last_start: Option<i64>,
    pub(super) limits: Limits,
}

/// What every execution of a part has in common.
pub(super) struct Plan {
    script: Vec<u8>,
    command_line: Vec<OsString>,
    script_args: Vec<OsString>,
    environment: Environment,
    repeat: Option<PinnedRepeat>,
}

impl Part {
    pub(super) fn of_pod(args: &RunArgs) -> Self {
        Self {
            run: args.run,
            attempt: args.attempt,
            history_limit: args.history_limit,
            first_serial: args.first_serial,
            remaining: args.remaining,
            last_start: args.last_start,
            limits: Limits {
                deadline: args.execution_deadline,
                grace: args.grace,
                stdout_bytes: args.stdout_limit_bytes,
                stderr_bytes: args.stderr_limit_bytes,
                kept: args.truncation,
            },
        }
    }

    /// What an order says; what it does not say holds as the pod was told.
    pub(super) fn ordered(order: &RunOrder, args: &RunArgs) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Self {
            run: order.run,
            attempt: order.attempt,
            history_limit: order.history_limit,
            first_serial: order.first_serial,
            remaining: Remaining::Count(order.remaining),
            last_start: None,
            limits: Limits {
                deadline: order.execution_deadline_seconds.map(seconds),
                grace: seconds(order.grace_seconds),
                stdout_bytes: order.stdout_limit_bytes,
                stderr_bytes: order.stderr_limit_bytes,
                kept: args.truncation,
            },
        }
    }
}

/// The inputs that came with an order. Who sent it has proved to be the operator, so nothing else is compared.
pub(super) fn inputs_of(order: &RunOrder) -> Result<Inputs, End> {
    let spec = serde_json::from_str(&order.spec).map_err(|error| {
        End::RunnerFailed(format!(
            "cannot understand the spec of run {}: {error}; use a runner image of the operator's version",
            order.run
        ))
    })?;
    Ok(Inputs { spec, script: order.script.clone().into_bytes(), trusted_ca: None })
}

impl Plan {
    pub(super) fn stop_on(&self) -> StopOn {
        self.repeat.as_ref().map(|repeat| repeat.stop_on).unwrap_or_default()
    }

    fn period(&self) -> Duration {
        Duration::from_secs(self.repeat.as_ref().map_or(0, |repeat| repeat.period_seconds.into()))
    }
}

impl Runner {
    /// Settles environment and command line, and installs the dependencies.
    pub(super) fn prepare(&mut self, part: &Part, inputs: Inputs) -> Result<Plan, End> {
        let Inputs { spec, script, trusted_ca } = inputs;
        let args = &self.args;
        folders::ensure_work_dir(&args.work_dir).map_err(|error| End::RunnerFailed(error.to_string()))?;
        let mut environment = self.environment.clone();
        // The container runtime sets HOME from the image; only a HOME that the user wrote into the spec is meant.
        if !spec.env.iter().any(|variable| variable.name == "HOME") {
            environment.set("HOME", args.work_dir.clone());
        }
        environment.set(labels::ENV_NODE, args.node.clone());
        environment.set(labels::ENV_RUN, part.run.to_string());
        environment.set(labels::ENV_ATTEMPT, part.attempt.to_string());
        environment.set(labels::ENV_RESULT_FILE, args.state_dir.join(labels::RESULT_FILE));
        if let Some(root) = &args.host_root {
            environment.set(labels::ENV_HOST_ROOT, root.clone());
        }
        let command_line = interpreter::choose(&spec, &script);
        let mut command_line = command_line.map_err(|error| End::InstallFailed(error.to_string()))?;
        let wanted = Wanted::of(&spec, &script, &command_line);
        let wanted = wanted.map_err(|error| End::InstallFailed(error.to_string()))?;
        if let Some(venv) = self.dependencies(part, wanted, trusted_ca, &script, &environment)? {
            command_line = venv.command_line(command_line);
            venv.activate(&mut environment);
        }
        let script_args = spec.args.iter().map(OsString::from).collect();
        Ok(Plan { script, command_line, script_args, environment, repeat: spec.repeat })
    }

    /// Executes as often as told.
    pub(super) fn repeat(&mut self, part: &Part, plan: &Plan) -> End {
        let now_unix = Timestamp::now().as_second();
        let delay = pacing::first_start(plan.repeat.as_ref(), part.first_serial, part.last_start, now_unix);
        let mut planned = self.started.elapsed() + delay;
        for done in 0.. {
            if part.remaining == Remaining::Count(done) {
                return End::Completed;
            }
            if done > 0 {
                planned = pacing::next_start(planned, plan.period(), self.started.elapsed());
            }
            // A pod that has nothing to hand over goes on waiting.
            let may_hand_over = done > 0 && part.remaining == Remaining::Endless;
            if let Some(end) = self.wait_until(planned, may_hand_over) {
                return end;
            }
            match self.execute(part, plan, done) {
                Ok(false) => {}
                Ok(true) => return End::Completed,
                Err(end) => return end,
            }
        }
        End::Completed
    }

    /// Waits for the next start. Returns the end that came instead.
    fn wait_until(&mut self, planned: Duration, may_hand_over: bool) -> Option<End> {
        loop {
            self.signals.clear();
            process::reap_all();
            self.note_acknowledgements();
            let now = self.started.elapsed();
            if self.signals.stop_requested() {
                return Some(End::Stopped);
            }
            if self.link.known().is_to_hand_over {
                return Some(End::Paused);
            }
            let mut next = planned;
            if let Some(since) = self.unacknowledged.since().filter(|_| may_hand_over) {
                let silence = now.saturating_sub(since);
                if silence >= self.args.handover {
                    return Some(End::HandedOver(silence));
                }
                next = next.min(since + self.args.handover);
            }
            if now >= planned {
                return None;
            }
            let wake = self.signals.wake_fd();
            poll::wait(&mut [PollFd::new(&wake, PollFlags::IN)], Some(next.saturating_sub(now)));
        }
    }

    /// Makes one execution after those that are done, and reports it. Returns whether the repetition ends with it.
    fn execute(&mut self, part: &Part, plan: &Plan, done: u64) -> Result<bool, End> {
        let serial = part.first_serial.saturating_add(done);
        let prepared = folders::ensure_work_dir(&self.args.work_dir)
            .and_then(|()| folders::write_script(&self.args.state_dir, &plan.script));
        let script = prepared.map_err(|error| End::RunnerFailed(error.to_string()))?;
        let result_file = self.args.state_dir.join(labels::RESULT_FILE);
        folders::remove_whatever(&result_file).map_err(|error| {
            End::RunnerFailed(format!(
                "cannot remove {}, which the execution before left: {error}",
                result_file.display()
            ))
        })?;
        let mut environment = plan.environment.clone();
        environment.set(labels::ENV_SERIAL, serial.to_string());
        let [interpreter, options @ ..] = plan.command_line.as_slice() else {
            return Err(End::RunnerFailed("the interpreter is empty".to_owned()));
        };
        let mut arguments = options.to_vec();
        arguments.push(script.into());
        arguments.extend_from_slice(&plan.script_args);
        self.ledger.begin(serial);
        self.report();
        let begun =
            Begun { run: part.run, attempt: part.attempt, serial, start_time: Time(Timestamp::now()) };
        let execution = match self.start_and_wait(&part.limits, interpreter, &arguments, &environment) {
            Ok(finished) => {
                let result = result_file::read(&result_file);
                if let Err(error) = &result {
                    log::line(&format!("execution {serial} has no result: {error}"));
                }
                outcome::with_result(outcome::of_finished(begun, finished, &self.args.exit_codes), result)
            }
            Err(sentence) => outcome::of_not_started(begun, &sentence),
        };
        let is_interrupted = execution.reason == NodeReason::Interrupted.as_str();
        let is_last = part.remaining == Remaining::Count(done + 1)
            || match plan.stop_on() {
                StopOn::Never => false,
                StopOn::Failure => execution.failed(),
                StopOn::Success => execution.succeeded(),
            };
        self.ledger.finish(execution);
        let snapshot = self.record();
        // The end of the part follows at once and tells it too.
        if !is_interrupted && !is_last {
            self.link.publish(snapshot);
        }
        if is_interrupted { Err(End::Stopped) } else { Ok(is_last) }
    }

    fn start_and_wait(
        &mut self,
        limits: &Limits,
        interpreter: &OsString,
        arguments: &[OsString],
        environment: &Environment,
    ) -> Result<process::Finished, String> {
        let explain = |error: &dyn std::error::Error| {
            format!(
                "cannot start interpreter {:?}: {error}; use an image that has it, or name another in spec.interpreter or the script's #! line",
                interpreter.to_string_lossy()
            )
        };
        let program = program::find(interpreter, environment.get("PATH")).map_err(|error| explain(&error))?;
        let job = Job {
            program: &program,
            arguments,
            environment,
            folder: &self.args.work_dir,
            outlet: Outlet::Stdout,
            mask: None,
        };
        process::execute(&job, limits, &mut self.signals).map_err(|error| explain(&error))
    }
}
