//! Shows how far the run of another process is, as its checkpoints say: a line on a terminal, otherwise a log line at
//! each change.

use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{HumanCount, ProgressBar};

use super::output::duration;
use super::progress::{clear, spinner};
use super::runs::Context;
use crate::counted::counted;
use crate::lake::Holder;
use crate::model::Table;
use crate::status::Situation;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunProgress {
    holder: Option<Holder>,
    /// Pages and versions of its walk that are staged, and the newest change among them.
    walk: Option<(u64, u64, Option<DateTime<Utc>>)>,
    /// Staged versions that wait for compaction, and their partitions.
    staged: (u64, u64),
    /// Conversations in the tables.
    rows: u64,
}

impl RunProgress {
    /// How far the run that holds the lake is.
    pub(super) fn of(situation: &Situation) -> Self {
        let (status, holder) = (&situation.status, situation.holder.clone());
        let command = holder.as_ref().map(|holder| holder.command.as_str());
        let is_own = |walk: &&crate::status::Unfinished| {
            command == Some(walk.command) || command == Some("sync") && walk.command == "export"
        };
        let walk = status.unfinished.iter().find(is_own);
        RunProgress {
            holder,
            walk: walk.map(|walk| (walk.pages, walk.conversations, walk.newest_change)),
            staged: (*status.staging.extent.rows.get(Table::Conversations), status.staging.dates),
            rows: status.tables.get(Table::Conversations).rows,
        }
    }

    /// The run.
    pub(super) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    fn line(&self, now: DateTime<Utc>) -> String {
        let mut parts = Vec::new();
        if let Some(holder) = &self.holder {
            let took = (now - holder.since).to_std().unwrap_or_default();
            let took = Duration::from_secs(took.as_secs());
            parts.push(format!("`{}` on {} for {}", holder.command, holder.host, duration(took)));
        }
        if let Some((pages, conversations, reached)) = self.walk {
            parts.push(counted(HumanCount(pages), "page"));
            parts.push(counted(HumanCount(conversations), "conversation"));
            parts.extend(reached.map(|at| format!("at {}", at.format("%Y-%m-%d %H:%M"))));
        }
        let (versions, partitions) = self.staged;
        if versions > 0 {
            let versions = counted(HumanCount(versions), "version");
            parts.push(format!("{versions} staged in {}", counted(HumanCount(partitions), "partition")));
        }
        parts.push(format!("{} in the tables", counted(HumanCount(self.rows), "conversation")));
        parts.join(" · ")
    }
}

/// Shows the progress.
pub(super) struct Following<'a> {
    context: &'a Context,
    bar: Option<ProgressBar>,
}

impl<'a> Following<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        let is_drawn = std::io::stderr().is_terminal() && !context.quiet;
        Following { context, bar: is_drawn.then(|| spinner(&context.bars)) }
    }

    /// Shows how far it is; `is_new` says that this is more than before.
    pub(super) fn show(&self, progress: &RunProgress, is_new: bool) {
        let line = progress.line(self.context.clock.now());
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None if is_new => tracing::info!("{line}"),
            None => {}
        }
    }

    pub(super) fn clear(self) {
        clear(self.bar, &self.context.bars);
    }
}
