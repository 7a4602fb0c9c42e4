//! Prints the receipt of an erasure for people.

use indicatif::HumanCount;

use super::output::line;
use crate::counted::counted;
use crate::forget::Receipt;
use crate::layout;
use crate::model::Table;

/// Prints it on stdout.
pub(super) fn print(receipt: &Receipt) {
    if let Some(lifted) = receipt.lifted {
        line(&format!("{} may come back; fetch them with `backfill`", conversations(lifted)));
        return;
    }
    let verb = if receipt.dry_run { "would forget" } else { "forgot" };
    line(&format!("{verb} {}, of {} suppressed", conversations(receipt.conversations), HumanCount(receipt.suppressed)));
    // Only an erasure reads the other tables.
    let counted_tables = Table::ALL.into_iter().filter(|table| !receipt.dry_run || *table == Table::Conversations);
    let rows = counted_tables.map(|table| format!("{} of {}", HumanCount(*receipt.rows.get(table)), table.name()));
    line(&format!("rows           {}", rows.collect::<Vec<_>>().join(", ")));
    line(&format!("partitions     {}", HumanCount(receipt.partitions)));
    line(&format!("staged files   {}", HumanCount(receipt.staged_files)));
    line(&format!("old files      {} of Delta tables", HumanCount(receipt.old_files.total())));
    if !receipt.dry_run {
        line(&format!("log parts      {} of Delta tables", HumanCount(receipt.log_parts)));
        line(&format!("quarantine     {}", counted(HumanCount(receipt.traces.quarantined_entries), "entry")));
        line(&format!("run reports    {}", HumanCount(receipt.traces.reports)));
        line(&format!("checkpoints    {}", HumanCount(receipt.traces.checkpoints)));
    }
    for remains in &receipt.not_reached {
        line(&format!("not reached    {}\n               {}", remains.what, remains.remedy));
    }
    if let Some(run) = &receipt.run_id {
        line(&format!("receipt        {}", layout::receipt(run)));
    }
}

fn conversations(count: u64) -> String {
    counted(HumanCount(count), "conversation")
}
