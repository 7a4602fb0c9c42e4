//! Writes the metrics of a run for the text-file collector of Prometheus (`--metrics-file`).
//!
//! Guarantees: the file is replaced as a whole, by a rename. A failed run keeps the time of the last success. A run
//! that never held the lake keeps the watermark and the sizes of the tables. These come from the file, because the lake
//! may be out of reach. Metrics of other commands and lakes stay, so that one DECAGON_METRICS_FILE serves all jobs;
//! other content of the file goes. A file that cannot be written fails no run. A killed process writes nothing, so
//! alert on the age of the last success.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use chrono::{DateTime, Utc};
use serde_json::Value;
use url::Url;

use super::args::{Command, LakeArgs, MetricsArgs};
use crate::lake::{RunOutcome, RunReport, TableTotals};
use crate::model::{PerTable, Table};
use crate::store::StoreCalls;

/// A metric: its name after `decagon_lake_`, its meaning, and its values with their additional labels.
type Metric = (&'static str, &'static str, fn(&LastRun<'_>) -> Vec<(String, f64)>);

/// Every metric, in the order of the file.
const METRICS: [Metric; 22] = [
    ("last_run_timestamp_seconds", "When the last run ended, failed runs included.", |run| one(seconds(run.ended_at))),
    (
        "last_run_duration_seconds",
        "Duration of the last run.",
        |run| one(seconds(run.ended_at) - seconds(run.began_at)),
    ),
    ("last_run_exit_code", "Exit code of the last run.", |run| one(run.exit_code.into())),
    (LAST_SUCCESS, "When a run last succeeded, with or without quarantined entries.", |run| {
        if run.succeeded() { one(seconds(run.ended_at)) } else { some(run.last_success) }
    }),
    (WATERMARK, "Time of the newest change known to be in the lake.", |run| some(run.watermark())),
    ("lag_seconds", "Time from the watermark to the end of the last run.", |run| {
        some(run.watermark().map(|watermark| seconds(run.ended_at) - watermark))
    }),
    ("last_run_requests", "Requests to the API, retries included.", |run| run.count(|report| report.requests)),
    ("last_run_retries", "Retried requests to the API.", |run| run.count(|report| report.retries)),
    ("last_run_pages", "Pages fetched.", |run| run.count(|report| report.pages)),
    ("last_run_page_bytes", "Bytes of the fetched pages.", |run| run.count(|report| report.page_bytes)),
    ("last_run_landed_rows", "Rows written to staging.", |run| run.by_table(|report| &report.staged_rows)),
    ("last_run_landed_bytes", "Bytes written to staging.", |run| run.by_table(|report| &report.staged_bytes)),
    ("last_run_quarantined", "Malformed entries that were quarantined.", |run| run.count(|report| report.quarantined)),
    ("last_run_compacted_dates", "Compacted partitions.", |run| {
        run.count(|report| report.compacted_dates.len() as u64)
    }),
    ("last_run_compacted_copies", "Versions of conversations that the compaction read.", |run| {
        run.count(|report| report.compacted_versions)
    }),
    ("last_run_duplicates_resolved", "Versions that a later version of the same conversation replaced.", |run| {
        run.count(|report| report.duplicates_resolved)
    }),
    ("last_run_table_rows", "Rows of the rewritten table files.", |run| run.by_table(|report| &report.table_rows)),
    ("last_run_table_bytes", "Bytes of the rewritten table files.", |run| run.by_table(|report| &report.table_bytes)),
    (SIZES[0], "Rows of the tables.", |run| run.sizes(0, |totals| totals.rows)),
    (SIZES[1], "Bytes of the tables' files.", |run| run.sizes(1, |totals| totals.bytes)),
    (SIZES[2], "Partitions of the tables.", |run| run.sizes(2, |totals| totals.dates)),
    ("last_run_store_calls", "Calls to the store, by kind.", |run| run.store_calls()),
];

const LAST_SUCCESS: &str = "last_success_timestamp_seconds";
const WATERMARK: &str = "watermark_timestamp_seconds";
/// The sizes of the tables, which stay if a run does not tell them.
const SIZES: [&str; 3] = ["table_rows", "table_bytes", "table_partitions"];

/// Writes the metrics of a run to the file of its command, if it has one. Without a `report` the run never held the
/// lake.
pub(super) fn leave(command: &Command, time: [DateTime<Utc>; 2], exit_code: u8, report: Option<&RunReport>) {
    let (name, metrics, of) = match command {
        Command::Sync(args) => ("sync", &args.export.fetch.metrics, &args.export.fetch.to),
        Command::Export(args) => ("export", &args.fetch.metrics, &args.fetch.to),
        Command::Backfill(args) => ("backfill", &args.fetch.metrics, &args.fetch.to),
        Command::Compact(args) => ("compact", &args.metrics, &args.of),
        Command::Forget(args) => ("forget", &args.compact.metrics, &args.compact.of),
        Command::Upgrade(args) => ("upgrade", &args.compact.metrics, &args.compact.of),
        Command::Reconcile(args) => ("reconcile", &args.metrics, &args.of),
        _ => return,
    };
    let MetricsArgs { metrics_file: Some(file) } = metrics else { return };
    let [began_at, ended_at] = time;
    let ended = LastRun { report, ..LastRun::new(began_at, ended_at, exit_code) };
    if let Err(error) = update(file, &own_labels(name, of), ended) {
        tracing::warn!("cannot write the metrics to {}: {error}", file.display());
    }
}

fn update(file: &Path, own: &str, ended: LastRun<'_>) -> io::Result<()> {
    // Reading a pipe would wait for its other end, and a device must not be replaced.
    if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("not a regular file"));
    }
    let before = fs::read_to_string(file).unwrap_or_default();
    // The collector ignores this name, because it reads files that end in .prom.
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let written = fs::write(&beside, render(own, ended, &before)).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The labels that all metrics of a command and a lake share.
fn own_labels(command: &str, of: &LakeArgs) -> String {
    let mut lake = of.lake.clone();
    // An address with a secret is refused, but this run has metrics too.
    if let Ok(mut url) = Url::parse(&lake)
        && (url.password().is_some() || url.query().is_some() || url.fragment().is_some())
    {
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        lake = url.into();
    }
    let lake = lake.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("command=\"{command}\",lake=\"{lake}\"")
}

/// The content of the file after a run, given its content `before`.
fn render(own: &str, mut ended: LastRun<'_>, before: &str) -> String {
    let kept = |metric: &str, more: &str| {
        let start = format!("decagon_lake_{metric}{{{own}{more}}} ");
        before.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    };
    ended.last_success = kept(LAST_SUCCESS, "");
    ended.last_watermark = kept(WATERMARK, "");
    ended.last_sizes = SIZES.map(|metric| PerTable::from_fn(|table| kept(metric, &of_table(table))));
    let mut text = String::new();
    for (metric, help, values) in METRICS {
        let name = format!("decagon_lake_{metric}");
        let others = before.lines().filter(|line| {
            let labels = line.strip_prefix(&name).and_then(|rest| rest.strip_prefix('{'));
            labels.is_some_and(|labels| is_sample(labels) && !labels.starts_with(own))
        });
        let mut lines: Vec<_> = others.map(str::to_owned).collect();
        let in_millis = |value: f64| (value * 1e3).round() / 1e3;
        lines.extend(values(&ended).iter().map(|(more, value)| format!("{name}{{{own}{more}}} {}", in_millis(*value))));
        if !lines.is_empty() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{}", lines.join("\n"));
        }
    }
    text
}

fn is_sample(labels: &str) -> bool {
    let value = labels.rsplit_once("} ").map(|(_, value)| value);
    labels.starts_with("command=\"") && value.is_some_and(|value| value.parse::<f64>().is_ok())
}

/// A run that has ended.
struct LastRun<'a> {
    began_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
    exit_code: u8,
    report: Option<&'a RunReport>,
    /// From the file, as earlier runs left it.
    last_success: Option<f64>,
    /// From the file as well.
    last_watermark: Option<f64>,
    /// From the file as well: each of [`SIZES`].
    last_sizes: [PerTable<Option<f64>>; 3],
}

impl LastRun<'_> {
    fn new(began_at: DateTime<Utc>, ended_at: DateTime<Utc>, exit_code: u8) -> Self {
        let (last_success, last_watermark, last_sizes) = (None, None, Default::default());
        LastRun { began_at, ended_at, exit_code, report: None, last_success, last_watermark, last_sizes }
    }

    fn succeeded(&self) -> bool {
        self.exit_code == 0 || self.report.is_some_and(|report| report.outcome == RunOutcome::Quarantined)
    }

    fn watermark(&self) -> Option<f64> {
        match self.report {
            Some(report) => report.watermark.map(seconds),
            None => self.last_watermark,
        }
    }

    /// A count of the report, or 0 for a run that never held the lake.
    fn count(&self, of: fn(&RunReport) -> u64) -> Vec<(String, f64)> {
        one(self.report.map_or(0, of) as f64)
    }

    fn by_table(&self, of: fn(&RunReport) -> &PerTable<u64>) -> Vec<(String, f64)> {
        let value = |table| self.report.map_or(0, |report| *of(report).get(table)) as f64;
        Table::ALL.iter().map(|table| (of_table(*table), value(*table))).collect()
    }

    /// The sizes of the tables: those of the report, or else those of the file.
    fn sizes(&self, place: usize, of: fn(&TableTotals) -> u64) -> Vec<(String, f64)> {
        let told = self.report.and_then(|report| report.tables.as_ref());
        let value = |table| match told {
            Some(tables) => Some(of(tables.get(table)) as f64),
            None => self.last_sizes.get(place).and_then(|sizes| *sizes.get(table)),
        };
        Table::ALL.iter().filter_map(|table| Some((of_table(*table), value(*table)?))).collect()
    }

    fn store_calls(&self) -> Vec<(String, f64)> {
        let calls = self.report.map_or_else(StoreCalls::default, |report| report.store_calls);
        let Ok(Value::Object(kinds)) = serde_json::to_value(calls) else { return Vec::new() };
        let sample = |(kind, calls): (String, Value)| Some((format!(",call=\"{kind}\""), calls.as_f64()?));
        kinds.into_iter().filter_map(sample).collect()
    }
}

fn of_table(table: Table) -> String {
    format!(",table=\"{}\"", table.name())
}

fn one(value: f64) -> Vec<(String, f64)> {
    vec![(String::new(), value)]
}

fn some(value: Option<f64>) -> Vec<(String, f64)> {
    value.map(one).unwrap_or_default()
}

fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    const SYNC: &str = r#"command="sync",lake="s3://a/b""#;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn report(watermark: i64) -> RunReport {
        let mut report = RunReport::new("sync", RunId::new(at(0), 1), at(0));
        report.watermark = Some(at(watermark));
        report.requests = 7;
        *report.staged_rows.get_mut(Table::Tags) = 3;
        report
    }

    fn ended(second: i64, exit_code: u8, report: Option<&RunReport>) -> LastRun<'_> {
        let (began_at, ended_at) = (at(second - 2), at(second));
        LastRun { report, ..LastRun::new(began_at, ended_at, exit_code) }
    }

    fn value(text: &str, metric: &str, labels: &str) -> Option<f64> {
        let start = format!("decagon_lake_{metric}{{{labels}}} ");
        let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&start)).collect();
        assert!(found.len() < 2, "{metric} is there twice");
        found.first().map(|value| value.parse().unwrap())
    }

    #[test]
    fn a_failed_run_keeps_the_last_success_and_the_watermark() {
        let done = render(SYNC, ended(1_000, 0, Some(&report(940))), "");
        assert_eq!(value(&done, "lag_seconds", SYNC), Some(60.0));
        let held = render(SYNC, ended(2_000, 7, None), &done);
        assert_eq!(value(&held, "last_run_exit_code", SYNC), Some(7.0));
        assert_eq!(value(&held, LAST_SUCCESS, SYNC), Some(1_000.0));
        assert_eq!(value(&held, "lag_seconds", SYNC), Some(1_060.0));
        assert_eq!(value(&held, "last_run_requests", SYNC), Some(0.0));
        let again = render(SYNC, ended(3_000, 0, Some(&report(2_999))), &held);
        assert_eq!(value(&again, LAST_SUCCESS, SYNC), Some(3_000.0));
        assert_eq!(value(&again, "last_run_landed_rows", &format!("{SYNC},table=\"tags\"")), Some(3.0));
    }

    #[test]
    fn a_first_run_that_fails_has_no_last_success() {
        let failed = render(SYNC, ended(1_000, 4, None), "");
        assert_eq!(value(&failed, "last_run_exit_code", SYNC), Some(4.0));
        assert!(!failed.contains(LAST_SUCCESS) && !failed.contains(WATERMARK));
    }

    #[test]
    fn the_sizes_of_the_tables_stay_until_a_run_tells_others() {
        let labels = format!("{SYNC},table=\"tags\"");
        let mut with_sizes = report(940);
        with_sizes.tables =
            Some(PerTable::from_fn(|_| TableTotals { rows: 7, bytes: 70, dates: 2, ..Default::default() }));
        let done = render(SYNC, ended(1_000, 0, Some(&with_sizes)), "");
        for report in [None, Some(&report(940))] {
            let later = render(SYNC, ended(2_000, 7, report), &done);
            for text in [&done, &later] {
                assert_eq!(SIZES.map(|metric| value(text, metric, &labels)), [7.0, 70.0, 2.0].map(Some));
            }
        }
        assert_eq!(value(&render(SYNC, ended(1_000, 7, None), ""), SIZES[0], &labels), None);
    }

    #[test]
    fn a_run_that_quarantined_entries_succeeded() {
        let mut quarantined = report(940);
        quarantined.outcome = RunOutcome::Quarantined;
        assert_eq!(value(&render(SYNC, ended(1_000, 6, Some(&quarantined)), ""), LAST_SUCCESS, SYNC), Some(1_000.0));
        quarantined.outcome = RunOutcome::Failed;
        assert_eq!(value(&render(SYNC, ended(1_000, 6, Some(&quarantined)), ""), LAST_SUCCESS, SYNC), None);
    }

    #[test]
    fn metrics_of_other_commands_and_lakes_stay_and_nothing_else_does() {
        let others = [r#"command="backfill",lake="s3://a/b""#, r#"command="sync",lake="s3://a/b2""#];
        let mut text =
            "of another shape\ndecagon_lake_lag_seconds 5\ndecagon_lake_lag_seconds{command=\"x\"} y\n".to_owned();
        for labels in [others[0], SYNC, others[1], SYNC] {
            text = render(labels, ended(1_000, 0, Some(&report(940))), &text);
        }
        for labels in [others[0], others[1], SYNC] {
            assert_eq!(value(&text, "lag_seconds", labels), Some(60.0));
        }
        // A report without a manifest tells no sizes.
        let told = METRICS.len() - SIZES.len();
        let samples = told - 5 + 4 * 4 + 8;
        assert_eq!(text.lines().count(), 2 * told + 3 * samples);
    }
}
