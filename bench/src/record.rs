//! Where figures go: every number into raw.csv as it comes, what was asked for into summary.md, and the exact command.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use k8s_openapi::jiff::{Timestamp, tz::TimeZone};

use crate::figures::readable;

/// First line of raw.csv.
const HEADER: &str = "scenario,driver,nodes,objects,seconds,metric,value,unit";

/// What a figure is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) scenario: &'static str,
    /// `null` or `operator`.
    pub(crate) driver: &'static str,
    pub(crate) nodes: u32,
    pub(crate) objects: u32,
}

/// A line of the summary: what was asked for, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) what: String,
    /// In words where there is no number to compare with.
    pub(crate) asked: Asked,
    pub(crate) measured: f64,
    pub(crate) unit: &'static str,
}

/// What a figure should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    /// At most this.
    AtMost(f64),
    /// Nothing: it is told.
    Told,
}

/// The folder of one call of the program.
pub(crate) struct Recording {
    folder: PathBuf,
    csv: File,
    sections: Vec<(Subject, Vec<Line>, Vec<String>)>,
}

impl Recording {
    /// Makes the folder, named by the day and the machine's size, and notes how the program was called.
    pub(crate) fn create(out: &Path, checkout: &Path, operator: &[String]) -> anyhow::Result<Self> {
        let day = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        let folder = free_folder(out, &format!("{day}-{}", machine()));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(folder.join("command.txt"), command(checkout, operator)).context("write command.txt")?;
        let mut csv = File::create(folder.join("raw.csv")).context("make raw.csv")?;
        writeln!(csv, "{HEADER}").context("write raw.csv")?;
        Ok(Self { folder, csv, sections: Vec::new() })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a figure; `seconds` after the beginning if it is one of a series.
    pub(crate) fn figure(
        &mut self,
        subject: &Subject,
        seconds: Option<f64>,
        metric: &str,
        value: f64,
        unit: &str,
    ) -> anyhow::Result<()> {
        let row = row(subject, seconds, metric, value, unit);
        writeln!(self.csv, "{row}").context("write raw.csv")
    }

    /// Adds a section to the summary and writes all of it again, so that what is there survives whatever comes.
    pub(crate) fn section(
        &mut self,
        subject: &Subject,
        lines: Vec<Line>,
        remarks: Vec<String>,
    ) -> anyhow::Result<()> {
        self.sections.push((subject.clone(), lines, remarks));
        fs::write(self.folder.join("summary.md"), summary(&self.sections)).context("write summary.md")
    }
}

fn row(subject: &Subject, seconds: Option<f64>, metric: &str, value: f64, unit: &str) -> String {
    let Subject { scenario, driver, nodes, objects } = subject;
    let seconds = seconds.map_or_else(String::new, |seconds| format!("{seconds:.1}"));
    let metric = metric.replace(['"', '\n'], " ");
    let metric = if metric.contains(',') { format!("\"{metric}\"") } else { metric };
    format!("{scenario},{driver},{nodes},{objects},{seconds},{metric},{value},{unit}")
}

fn summary(sections: &[(Subject, Vec<Line>, Vec<String>)]) -> String {
    let mut text = format!("# Figures\n\n{}\n", conditions());
    for (subject, lines, remarks) in sections {
        let Subject { scenario, driver, nodes, objects } = subject;
        let objects = if *objects == 1 { String::new() } else { format!(", {objects} ScriptRunners") };
        let _ = write!(text, "\n## {scenario}, {nodes} nodes{objects} ({driver})\n\n");
        if !lines.is_empty() {
            text.push_str("| what | asked | measured | measured / asked |\n|---|---|---|---|\n");
        }
        for Line { what, asked, measured, unit } in lines {
            let (asked, ratio) = match asked {
                Asked::AtMost(limit) if *limit > 0.0 => {
                    (format!("<= {} {unit}", readable(*limit)), readable(measured / limit))
                }
                Asked::AtMost(limit) => (format!("<= {} {unit}", readable(*limit)), String::new()),
                Asked::Told => (String::new(), String::new()),
            };
            let _ =
                writeln!(text, "| {what} | {} | {} {unit} | {ratio} |", asked.trim(), readable(*measured));
        }
        for remark in remarks {
            let _ = write!(text, "\n{remark}\n");
        }
    }
    text
}

/// What every figure depends on.
fn conditions() -> String {
    format!(
        "Everything shares {}. etcd does not wait for the disk; the API server has its default limits and writes an audit log of \
         every request. Pods name their node: the scheduler runs with its default limits and has nothing to do. The operator has \
         its account's rights and no client limit of its own; the null driver has the same account and 32 requests in flight. \
         kwok plays 16 pods at a time. All numbers are in raw.csv, how they were made in command.txt.\n",
        machine().replace('-', " ")
    )
}

/// The size of this machine.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gibibytes = kibibytes.and_then(|text| text.parse::<u64>().ok()).map_or(0, |it| it.div_ceil(1 << 20));
    format!("{cores}-cores-{gibibytes}-GiB")
}

fn free_folder(out: &Path, name: &str) -> PathBuf {
    let first = out.join(name);
    let further = (2..).map(|number| out.join(format!("{name}-{number}")));
    std::iter::once(first).chain(further).find(|folder| !folder.exists()).unwrap_or_default()
}

fn command(checkout: &Path, operator: &[String]) -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let revision = Command::new("git")
        .arg("-C")
        .arg(checkout)
        .args(["describe", "--always", "--dirty"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    format!(
        "revision {revision}\nscriptrunner-bench {}\nscriptrunner-operator {}\n",
        arguments.join(" "),
        operator.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject = Subject { scenario: "burst", driver: "operator", nodes: 100, objects: 1 };

    #[test]
    fn a_row_has_as_many_fields_as_the_header() {
        let plain = row(&SUBJECT, Some(1.25), "operator memory", 2.5, "bytes");
        assert_eq!(plain, "burst,operator,100,1,1.2,operator memory,2.5,bytes");
        assert_eq!(plain.split(',').count(), HEADER.split(',').count());
        let odd = row(&SUBJECT, None, "a \"b\", c", 1.0, "");
        assert_eq!(odd, "burst,operator,100,1,,\"a  b , c\",1,");
    }

    #[test]
    fn the_summary_says_asked_measured_and_ratio() {
        let lines = vec![
            Line { what: "time".into(), asked: Asked::AtMost(2.0), measured: 3.0, unit: "s" },
            Line { what: "429".into(), asked: Asked::AtMost(0.0), measured: 0.0, unit: "" },
            Line { what: "puts".into(), asked: Asked::Told, measured: 1234.0, unit: "" },
        ];
        let text = summary(&[(SUBJECT, lines, vec!["It rained.".into()])]);
        assert!(text.contains("## burst, 100 nodes (operator)"), "{text}");
        assert!(text.contains("| time | <= 2.00 s | 3.00 s | 1.50 |"), "{text}");
        assert!(text.contains("| 429 | <= 0 | 0  |  |"), "{text}");
        assert!(text.contains("| puts |  | 1234  |  |"), "{text}");
        assert!(text.ends_with("\nIt rained.\n"), "{text}");
    }

    #[test]
    fn a_second_call_of_a_day_overwrites_nothing() {
        let out = tempfile::tempdir().unwrap();
        for name in ["day", "day-2", "day-3"] {
            let folder = free_folder(out.path(), "day");
            assert_eq!(folder, out.path().join(name));
            fs::create_dir(folder).unwrap();
        }
    }
}
