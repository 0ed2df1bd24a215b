//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the operator against a real control plane with fake nodes, and writes the figures to bench/runs.
#[derive(Parser, Debug)]
#[command(name = "scriptrunner-bench", version)]
pub(crate) struct Args {
    /// What to measure, in this order; each begins with a control plane of its own.
    #[arg(value_enum, required = true)]
    pub(crate) scenarios: Vec<Scenario>,
    /// Numbers of nodes to measure with, for example 100,1000,5000.
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) nodes: Vec<u32>,
    /// How long `steady` lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) minutes: u32,
    /// How many ScriptRunners `steady` has, each on every node.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) objects: u32,
    /// After how many seconds a scenario is given up, over and above the time that it lasts by itself.
    #[arg(long, default_value_t = 600)]
    pub(crate) deadline_seconds: u64,
    /// The operator's program; if absent, the one beside this program.
    #[arg(long)]
    pub(crate) operator: Option<PathBuf>,
    /// A further flag of the operator, for example --operator-flag=--status-interval-seconds=2.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) operator_flag: Vec<String>,
    /// Folder that gets a folder with the figures; if absent, bench/runs of the checkout.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Leaves the last control plane up, with what the operator and the fake nodes left in it.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Name of the cluster; one of that name that is there is replaced.
    #[arg(long, default_value = "bench")]
    pub(crate) cluster: String,
}

/// What can be measured.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Nothing: the control plane and its nodes come up, and the tokens of the simulated runners are judged.
    Nodes,
    /// The null driver alone.
    Null,
    /// The null driver, then the operator: every script ends within a second of its start.
    Burst,
    /// Every node every 60 s, without end.
    Steady,
    /// The operator is killed with every session up, and every runner has something unstored to say.
    Storm,
    /// 100 ScriptRunners, each on 50 nodes.
    Many,
    /// The script is edited while the runners of the first run wait for more.
    Warm,
    /// A ScriptRunner is deleted while its pods run on every node.
    Deletion,
}

impl Scenario {
    /// Whether it measures the operator.
    pub(crate) fn needs_operator(self) -> bool {
        !matches!(self, Self::Nodes | Self::Null)
    }

    /// Its name on the command line and in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Null => "null",
            Self::Burst => "burst",
            Self::Steady => "steady",
            Self::Storm => "storm",
            Self::Many => "many",
            Self::Warm => "warm",
            Self::Deletion => "deletion",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::value_variants() {
            let named = scenario.to_possible_value().unwrap();
            assert_eq!(named.get_name(), scenario.name());
        }
    }

    #[test]
    fn several_scenarios_and_numbers_of_nodes_are_read() {
        let line = "scriptrunner-bench burst storm --nodes 100,1000 --operator-flag=--lease-seconds=20";
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(args.scenarios, [Scenario::Burst, Scenario::Storm]);
        assert_eq!(args.nodes, [100, 1000]);
        assert_eq!(args.operator_flag, ["--lease-seconds=20"]);
    }
}
