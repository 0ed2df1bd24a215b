//! The program `testcluster`: reads the command line and calls the library.

mod args;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::Parser;
use scriptrunner_testcluster::{
    Cluster, binaries, down, process,
    progress::Progress,
    sandbox,
    up::{Wish, up},
};

use crate::args::{Action, Cli, Command, Up};

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        // These two run before or inside of a sandbox: no runtime, no threads.
        Command::Launch { group, program, arguments } => {
            Err(process::launch(&group, &program, &arguments).into())
        }
        Command::Sandbox { config } => Err(sandbox::run(&config).into()),
        command => run(command),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a reader there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "scriptrunner-testcluster: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(wish) => bring_up(wish).await,
        Command::Down { cluster } => {
            let text = if down(&cluster.name)? { "is down" } else { "was not there" };
            print(&format!("cluster {:?} {text}", cluster.name))
        }
        Command::Status { cluster } => status(&Cluster::existing(&cluster.name)?).await,
        Command::LoadImage { cluster, archives } => {
            let cluster = Cluster::existing(&cluster.name)?;
            for archive in archives {
                let images = cluster.load_image(&archive)?;
                let text = if images.is_empty() { "no new image".into() } else { images.join(", ") };
                print(&format!("{}: {text}", archive.display()))?;
            }
            Ok(())
        }
        Command::Node { node, action } => act(&node, action),
        Command::Path { cluster, what } => {
            let cluster = Cluster::existing(&cluster.name)?;
            let path = path(&cluster, &what)
                .with_context(|| format!("no {what:?}: ask for kubeconfig, audit-log, logs or a binary"))?;
            print(&path.display().to_string())
        }
        Command::Build => {
            let built = binaries::Binaries::ensure(&binaries::find_checkout()?, &Progress::new())?;
            for folder in [built.kubernetes, built.containerd, built.cni, built.coredns] {
                print(&folder.display().to_string())?;
            }
            Ok(())
        }
        Command::Launch { .. } | Command::Sandbox { .. } => Ok(()),
    }
}

async fn bring_up(wish: Up) -> anyhow::Result<()> {
    let Up { cluster, nodes, node_memory_mib, node_processes, node_monitor_grace_period_seconds, default } =
        wish;
    let program = std::env::current_exe().context("cannot find this program")?;
    let programs = program.parent().context("this program lies in no folder")?.to_owned();
    let wish = Wish {
        name: cluster.name,
        nodes,
        node_memory_mib,
        node_processes,
        node_monitor_grace_period_seconds,
        default,
        programs,
    };
    let start = Instant::now();
    let cluster = up(&wish, &Progress::new()).await?;
    print(&format!("cluster {:?} is up after {:.1} s", cluster.name(), start.elapsed().as_secs_f32()))?;
    print(&format!("export KUBECONFIG={}", cluster.kubeconfig().display()))?;
    print(&format!("kubectl: {}", cluster.kubectl().display()))
}

async fn status(cluster: &Cluster) -> anyhow::Result<()> {
    let report = scriptrunner_testcluster::status::report(cluster).await?;
    print(report.trim_end())
}

fn act(node: &str, action: Action) -> anyhow::Result<()> {
    let (name, _) = node
        .rsplit_once("-node")
        .with_context(|| format!("{node:?} is no node's name: `kubectl get nodes` lists them"))?;
    let cluster = Cluster::existing(name)?;
    match action {
        Action::Kill => cluster.kill(node)?,
        Action::Freeze => cluster.freeze(node)?,
        Action::Cut => cluster.cut(node)?,
        Action::Heal => cluster.heal(node)?,
    }
    print(&format!("node {node:?}: {:?}", cluster.condition(node)?).to_lowercase())
}

fn path(cluster: &Cluster, what: &str) -> Option<PathBuf> {
    match what {
        "kubeconfig" => Some(cluster.kubeconfig()),
        "audit-log" => Some(cluster.audit_log()),
        "logs" => Some(cluster.logs()),
        binary => cluster.binary(binary),
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write the answer")
}
