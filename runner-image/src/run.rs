//! The sequence: check the inputs, leave the marker, install, then execute as often as told; every step is reported.

use std::{
    ffi::OsString,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use rustix::event::{PollFd, PollFlags};
use scriptrunner_api::{labels, pinned::PinnedRepeat, reason::NodeReason, v1alpha1::StopOn};

use crate::{
    args::{Environment, Remaining, RunArgs},
    folders,
    inputs::{self, Inputs},
    install::{self, Installer},
    interpreter,
    ledger::{End, Ledger},
    log,
    marker::{self, Start},
    outcome::{self, Begun},
    pacing, poll,
    process::{self, Job, Limits, Outlet},
    program,
    signals::Signals,
    termination,
};

/// Runs the pod's part of a run and returns the exit code.
pub(crate) fn run(args: RunArgs, environment: Environment, signals: Signals) -> u8 {
    let ledger = Ledger::new(boot(), args.run, args.attempt, args.history_limit);
    let mut runner = Runner { started: Instant::now(), args, signals, ledger };
    runner.report();
    process::adopt_orphans();
    let mut stop_on = StopOn::Never;
    let end = runner.sequence(environment, &mut stop_on);
    let has_failed = runner.ledger.end(&end, stop_on);
    runner.report();
    log::line(&runner.ledger.summary());
    end.exit_code(has_failed)
}

/// Random per start, so that a second start is told from the first.
fn boot() -> String {
    format!("{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff)
}

struct Runner {
    started: Instant,
    args: RunArgs,
    signals: Signals,
    ledger: Ledger,
}

/// What every execution of this pod has in common.
struct Plan {
    script: Vec<u8>,
    command_line: Vec<OsString>,
    script_args: Vec<OsString>,
    environment: Environment,
    repeat: Option<PinnedRepeat>,
}

impl Plan {
    fn stop_on(&self) -> StopOn {
        self.repeat.as_ref().map(|repeat| repeat.stop_on).unwrap_or_default()
    }

    fn period(&self) -> Duration {
        Duration::from_secs(self.repeat.as_ref().map_or(0, |repeat| repeat.period_seconds.into()))
    }
}

impl Runner {
    fn sequence(&mut self, environment: Environment, stop_on: &mut StopOn) -> End {
        if self.args.protocol != labels::PROTOCOL {
            return End::ProtocolUnknown(self.args.protocol);
        }
        let inputs =
            match inputs::read(&self.args.input_dir, &self.args.spec_sha256, &self.args.script_sha256) {
                Ok(inputs) => inputs,
                Err(error) if error.is_tampering() => return End::InputTampered(error.to_string()),
                Err(error) => return End::RunnerFailed(error.to_string()),
            };
        match marker::make(&self.args.state_dir) {
            Ok(Start::First) => {}
            Ok(Start::Repeated) => return End::Restarted,
            Err(error) => return End::RunnerFailed(error.to_string()),
        }
        match self.prepare(inputs, environment) {
            Ok(plan) => {
                *stop_on = plan.stop_on();
                self.repeat(&plan)
            }
            Err(end) => end,
        }
    }

    /// Settles environment and command line, and installs the dependencies.
    fn prepare(&mut self, inputs: Inputs, mut environment: Environment) -> Result<Plan, End> {
        let Inputs { spec, script } = inputs;
        let args = &self.args;
        folders::ensure_work_dir(&args.work_dir).map_err(|error| End::RunnerFailed(error.to_string()))?;
        // The container runtime sets HOME from the image; only a HOME that the user wrote into the spec is meant.
        if !spec.env.iter().any(|variable| variable.name == "HOME") {
            environment.set("HOME", args.work_dir.clone());
        }
        environment.set(labels::ENV_NODE, args.node.clone());
        environment.set(labels::ENV_RUN, args.run.to_string());
        environment.set(labels::ENV_ATTEMPT, args.attempt.to_string());
        if let Some(root) = &args.host_root {
            environment.set(labels::ENV_HOST_ROOT, root.clone());
        }
        let mut command_line = interpreter::choose(&spec, &script);
        if !spec.pip.is_empty() {
            let installer = Installer {
                state_dir: &args.state_dir,
                work_dir: &args.work_dir,
                environment: &environment,
                grace: args.grace,
            };
            let venv =
                installer.install(&spec.pip, &command_line, &mut self.signals).map_err(
                    |error| match error {
                        install::Error::Interrupted => End::Stopped,
                        failed => End::InstallFailed(failed.to_string()),
                    },
                )?;
            command_line = venv.command_line(command_line);
            venv.activate(&mut environment);
        }
        let script_args = spec.args.iter().map(OsString::from).collect();
        Ok(Plan { script, command_line, script_args, environment, repeat: spec.repeat })
    }

    fn repeat(&mut self, plan: &Plan) -> End {
        let now_unix = Timestamp::now().as_second();
        let (first_serial, last_start) = (self.args.first_serial, self.args.last_start);
        let delay = pacing::first_start(plan.repeat.as_ref(), first_serial, last_start, now_unix);
        let mut planned = self.started.elapsed() + delay;
        for done in 0.. {
            if self.args.remaining == Remaining::Count(done) {
                return End::Completed;
            }
            if done > 0 {
                planned = pacing::next_start(planned, plan.period(), self.started.elapsed());
            }
            // A pod that has nothing to hand over goes on waiting.
            let may_hand_over = done > 0 && self.args.remaining == Remaining::Endless;
            if let Some(end) = self.wait_until(planned, may_hand_over) {
                return end;
            }
            match self.execute(plan, first_serial.saturating_add(done)) {
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
            let now = self.started.elapsed();
            if self.signals.stop_requested() {
                return Some(End::Stopped);
            }
            if may_hand_over && now >= self.args.handover {
                return Some(End::HandedOver);
            }
            if now >= planned {
                return None;
            }
            let next = if may_hand_over { planned.min(self.args.handover) } else { planned };
            let wake = self.signals.wake_fd();
            poll::wait(&mut [PollFd::new(&wake, PollFlags::IN)], Some(next.saturating_sub(now)));
        }
    }

    /// Makes one execution and reports it. Returns whether the repetition ends with it.
    fn execute(&mut self, plan: &Plan, serial: u64) -> Result<bool, End> {
        let prepared = folders::ensure_work_dir(&self.args.work_dir)
            .and_then(|()| folders::write_script(&self.args.state_dir, &plan.script));
        let script = prepared.map_err(|error| End::RunnerFailed(error.to_string()))?;
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
        let begun = Begun {
            run: self.args.run,
            attempt: self.args.attempt,
            serial,
            start_time: Time(Timestamp::now()),
        };
        let execution = match self.start_and_wait(interpreter, &arguments, &environment) {
            Ok(finished) => outcome::of_finished(begun, finished),
            Err(sentence) => outcome::of_not_started(begun, &sentence),
        };
        let is_interrupted = execution.reason == NodeReason::Interrupted.as_str();
        let is_last = match plan.stop_on() {
            StopOn::Never => false,
            StopOn::Failure => !execution.succeeded(),
            StopOn::Success => execution.succeeded(),
        };
        self.ledger.finish(execution);
        self.report();
        if is_interrupted { Err(End::Stopped) } else { Ok(is_last) }
    }

    fn start_and_wait(
        &mut self,
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
        };
        let limits = Limits {
            deadline: self.args.execution_deadline,
            grace: self.args.grace,
            stdout_bytes: self.args.stdout_limit_bytes,
            stderr_bytes: self.args.stderr_limit_bytes,
        };
        process::execute(&job, &limits, &mut self.signals).map_err(|error| explain(&error))
    }

    /// Publishes the state. A failure is told and tried again with the next state: the script comes first.
    fn report(&mut self) {
        let snapshot = self.ledger.publish();
        if let Err(error) = termination::write(&self.args.termination_log, &snapshot) {
            log::line(&error.to_string());
        }
    }
}
