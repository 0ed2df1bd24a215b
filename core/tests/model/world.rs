//! Everything at once: the server, its nodes, the operator's processes and the user, and one random step of any of them.

mod harm;

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::labels;
use scriptrunner_core::pod::{PodSettings, RunnerTimes};
use serde_json::Value;

use self::harm::{set_label, set_ready};
use crate::{
    api_server::{ApiServer, has_ended, uid_of},
    check::Seen,
    kubelet::Machine,
    ledger::Ledger,
    operator::{Deed, Kind, Line, Process},
    random::Random,
    user,
};

/// Most edits of one walk.
const MOST_EDITS: usize = 12;

/// How rough a walk is: of a hundred steps, so many are faults of that kind.
#[derive(Clone, Copy, Debug)]
struct Weather {
    pods: usize,
    nodes: usize,
    operators: usize,
    edits: usize,
}

/// The world of one walk.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) ledger: Ledger,
    pub(crate) seen: Seen,
    pub(crate) process: Process,
    /// A process that was paused, and does not know that another one leads.
    former: Option<Process>,
    pub(crate) spec: Value,
    /// Every spec, by its generation.
    pub(crate) specs: BTreeMap<i64, Value>,
    pub(crate) other_bytes: usize,
    edits: usize,
    processes: u32,
    weather: Weather,
    line: Line,
    pub(crate) random: Random,
    /// What happened, if that is wanted.
    pub(crate) story: Option<Vec<String>>,
}

fn settings() -> PodSettings {
    PodSettings {
        runner_image: "runner".to_owned(),
        allowed_images: scriptrunner_core::validate::AllowedImages::default(),
        default_memory: None,
        default_ephemeral_storage: None,
        times: RunnerTimes {
            kept_pod_seconds: u32::try_from(crate::check::KEPT_POD_SECONDS).unwrap(),
            ..RunnerTimes::DEFAULT
        },
        session: None,
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let spec = user::first(&mut random);
        let mut server = ApiServer::new(Timestamp::from_second(1_800_000_000).unwrap(), &spec);
        let mut machines = BTreeMap::new();
        for number in 1..=1 + random.below(5) {
            let name = format!("n{number}");
            server.create_node(&name);
            let zone = random.pick(&["a", "b"]);
            server.change_node(&name, |node| set_label(node, "zone", Some(zone)));
            machines.insert(name, Machine::new());
        }
        let weather = Weather {
            pods: random.pick(&[0, 8, 16]),
            nodes: random.pick(&[0, 4, 10]),
            operators: random.pick(&[0, 5, 10]),
            edits: random.pick(&[0, 2, 6]),
        };
        let rough = weather.operators;
        let line = Line { deaf: rough / 3, slow: rough / 2, beside: random.pick(&[0, 30]) };
        // In some walks the object has little room left for its status.
        let other_bytes = random.pick(&[1000, 1000, 1000, 1_034_000]);
        let process = Process::start(1, &server, settings(), other_bytes);
        server.leader = 1;
        let specs = BTreeMap::from([(1, spec.clone())]);
        Self {
            server,
            machines,
            ledger: Ledger::default(),
            seen: Seen::default(),
            process,
            former: None,
            spec,
            specs,
            other_bytes,
            edits: 0,
            processes: 1,
            weather,
            line,
            random,
            story: None,
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            if story.is_empty() {
                story.push(format!("the first spec is {}", self.specs[&1]));
            }
            story.push(format!("{} {}", self.server.now, what()));
        }
    }

    /// One random step. What is wrong after it.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        if self.server.object.is_none() {
            return Ok(());
        }
        let Weather { pods, nodes, operators, edits } = self.weather;
        let roll = self.random.below(100);
        if roll < pods {
            self.harm_pod();
        } else if roll < pods + nodes {
            self.harm_node();
        } else if roll < pods + nodes + operators {
            self.harm_operator()?;
        } else if roll < pods + nodes + operators + edits {
            self.edit();
        } else {
            self.go_on()?;
        }
        self.check()
    }

    /// Something that is no fault.
    fn go_on(&mut self) -> Result<(), String> {
        match self.random.below(24) {
            0..=5 => self.reconcile(8),
            6..=8 => self.reconcile(1),
            9..=11 => {
                let kind = self.random.pick(&Kind::ALL);
                let most = 1 + self.random.below(6);
                if self.process.is_broken(kind) && self.random.chance(30) {
                    self.process.list(kind, &self.server);
                }
                self.process.hear(kind, &self.server, most);
                self.tell(|| format!("a watch of {kind:?} shows {most}"));
                Ok(())
            }
            12 | 13 => self.act_on_pods(1).map(drop),
            14 | 15 => self.work_on_containers(1).map(drop),
            16..=20 => {
                self.tell(|| "all get on".to_owned());
                self.act_on_pods(2)?;
                let executions = self.random.below(4);
                self.work_on_containers(executions)?;
                self.act_on_pods(1)?;
                self.hear_all();
                self.reconcile(12)
            }
            _ => {
                let seconds = self.random.pick(&[1, 2, 5, 11, 11, 40, 130]);
                self.server.wait(seconds);
                self.tell(|| format!("{seconds} seconds pass"));
                Ok(())
            }
        }
    }

    /// The process does so many steps, or what it has begun and one more look.
    fn reconcile(&mut self, most: usize) -> Result<(), String> {
        for step in 0..most {
            if step > 0 && !self.process.is_at_work() {
                break;
            }
            let deeds = self.process.step(&mut self.server, self.line, &mut self.random);
            self.take_down(deeds)?;
        }
        self.tell(|| "the operator works".to_owned());
        Ok(())
    }

    /// Writes down and judges what a process did.
    pub(crate) fn take_down(&mut self, deeds: Vec<Deed>) -> Result<(), String> {
        for deed in deeds {
            self.tell(|| match &deed {
                Deed::Created { pod, .. } => format!("created {}", described(pod)),
                Deed::Deleted { pod, why, .. } => format!("deleted {}: {why}", described(pod)),
                Deed::Wrote { .. } => "wrote a status".to_owned(),
                Deed::Ended { .. } => "deleted the object".to_owned(),
            });
            match deed {
                Deed::Created { pod, basis } => {
                    self.check_creation(&pod, &basis)?;
                    self.ledger.create(&pod)?;
                }
                Deed::Ended { object } => self.check_end(&object)?,
                Deed::Deleted { pod, why, is_over, basis } => {
                    self.check_deletion(&pod, why, is_over, &basis)?;
                    if !self.server.pods.contains_key(pod.metadata.name.as_deref().unwrap()) {
                        self.ledger.remove(&pod, self.server.object.as_deref());
                    }
                }
                Deed::Wrote { before } => self.check_write(before.as_deref())?,
            }
        }
        Ok(())
    }

    pub(crate) fn hear_all(&mut self) -> bool {
        let mut is_news = false;
        for kind in Kind::ALL {
            if self.process.is_broken(kind) {
                self.process.list(kind, &self.server);
                is_news = true;
            }
            is_news |= self.process.hear(kind, &self.server, usize::MAX);
        }
        is_news
    }

    /// The scheduler, the garbage collector and kubelets bring every pod so many steps further.
    pub(crate) fn act_on_pods(&mut self, steps: usize) -> Result<bool, String> {
        let mut is_news = false;
        for name in self.server.pods.keys().cloned().collect::<Vec<_>>() {
            for _ in 0..steps {
                is_news |= self.act_on_pod(&name);
            }
        }
        for machine in self.machines.values_mut() {
            machine.collect_garbage(&self.server, &mut self.ledger);
        }
        self.ledger.wrong.take().map_or(Ok(is_news), Err)
    }

    fn act_on_pod(&mut self, name: &str) -> bool {
        let Some(pod) = self.server.pods.get(name).cloned() else { return false };
        let target = pod.metadata.annotations.as_ref().unwrap()[labels::NODE].clone();
        match pod.spec.as_ref().unwrap().node_name.clone() {
            None if self.server.nodes.contains_key(&target) => {
                self.server.change_pod(name, |pod| pod.spec.as_mut().unwrap().node_name = Some(target));
                true
            }
            Some(node) if self.server.nodes.contains_key(&node) => {
                let machine = self.machines.get_mut(&node).unwrap();
                machine.sync(name, &mut self.server, &mut self.ledger)
            }
            // Bound to a node that is gone: the pod garbage collector removes it.
            Some(_) => {
                if !has_ended(&pod) {
                    self.server.change_pod(name, |pod| {
                        pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
                    });
                }
                self.remove(&pod);
                true
            }
            None => false,
        }
    }

    /// The pod's object goes, whoever still runs.
    fn remove(&mut self, pod: &Pod) {
        self.ledger.remove(pod, self.server.object.as_deref());
        self.server.remove_pod(pod.metadata.name.as_deref().unwrap());
    }

    pub(crate) fn work_on_containers(&mut self, most: usize) -> Result<bool, String> {
        let mut is_news = false;
        for machine in self.machines.values_mut() {
            for uid in machine.containers.keys().cloned().collect::<Vec<_>>() {
                for _ in 0..most {
                    is_news |= machine.work(&uid, &self.server, &mut self.ledger)?;
                }
            }
        }
        Ok(is_news)
    }

    /// The process ends, and another one begins.
    pub(crate) fn replace_process(&mut self) {
        self.process = self.next_process();
    }

    fn next_process(&mut self) -> Process {
        self.processes += 1;
        self.server.leader = self.processes;
        Process::start(self.processes, &self.server, settings(), self.other_bytes)
    }

    fn edit(&mut self) {
        if self.edits < MOST_EDITS {
            self.edits += 1;
            self.write_spec(user::edited(&self.spec, self.edits, &mut self.random.clone()));
            self.random.next();
        }
    }

    pub(crate) fn write_spec(&mut self, spec: Value) {
        self.server.edit(&spec);
        let Some(object) = &self.server.object else { return };
        self.specs.insert(object.metadata.generation.unwrap(), spec.clone());
        self.admit_spec(&spec);
        self.tell(|| format!("the spec is {spec}"));
        self.spec = spec;
    }

    /// The faults are over: everything that was broken works again. What nodes are like stays.
    pub(crate) fn mend(&mut self) {
        self.tell(|| "the faults are over".to_owned());
        self.line = Line::default();
        (self.server.is_full, self.server.is_full_of_config_maps) = (false, false);
        self.former = None;
        let names: Vec<String> = self.machines.keys().cloned().collect();
        for name in names {
            let machine = self.machines.get_mut(&name).unwrap();
            if !machine.is_up {
                machine.come_up(false, &self.server, &mut self.ledger);
            }
            (machine.is_cut, machine.is_frozen) = (false, false);
            machine.collect_garbage(&self.server, &mut self.ledger);
            let now = Time(self.server.now);
            self.server.change_node(&name, |node| set_ready(node, true, &now));
        }
    }

    /// One step without faults, of the process alone. Whether anything came of it.
    pub(crate) fn reconcile_all(&mut self) -> Result<bool, String> {
        let version = self.server.version();
        self.hear_all();
        for _ in 0..200 {
            let deeds = self.process.step(&mut self.server, self.line, &mut self.random);
            self.take_down(deeds)?;
            if !self.process.is_at_work() {
                break;
            }
        }
        Ok(self.server.version() != version)
    }

    /// A world that goes on from the same truth, with another process.
    pub(crate) fn with_fresh_process(&self) -> Self {
        let mut world = Self {
            server: self.server.clone(),
            machines: self.machines.clone(),
            ledger: self.ledger.clone(),
            seen: self.seen.clone(),
            process: Process::start(self.processes + 1, &self.server, settings(), self.other_bytes),
            former: None,
            spec: self.spec.clone(),
            specs: self.specs.clone(),
            other_bytes: self.other_bytes,
            edits: self.edits,
            processes: self.processes + 1,
            weather: self.weather,
            line: self.line,
            random: self.random.clone(),
            story: self.story.clone(),
        };
        world.server.leader = world.processes;
        world
    }
}

fn described(pod: &Pod) -> String {
    let labels = pod.metadata.labels.as_ref().unwrap();
    let node = &pod.metadata.annotations.as_ref().unwrap()[labels::NODE];
    format!(
        "pod {} of run {} attempt {} on {node}",
        uid_of(pod),
        labels[labels::RUN],
        labels[labels::ATTEMPT]
    )
}
