//! Late arrivals: conversations that an increment returned first although they had changed before its watermark.
//!
//! Each proves that the API publishes late. Only those within the overlap can be counted; later ones are missed, so the
//! warning says what to do about them.

use std::time::Duration;

use crate::counted::counted;
use crate::lake::RunReport;
use crate::merge::Late;

/// The shortest overlap to advise: the default of `--overlap`.
const LEAST_ADVISED: u64 = 10 * 60;
/// The lag of any database between a change and its commit; counted, but not worth a warning.
const USUAL_SECS: u64 = 1;

/// Adds late arrivals to the report.
pub(super) fn count(report: &mut RunReport, late: Late) {
    let secs = u64::try_from(late.longest_micros).unwrap_or(0).div_ceil(1_000_000);
    report.late_arrivals += late.arrivals;
    report.latest_arrival_secs = report.latest_arrival_secs.max(secs);
}

/// Warns of the late arrivals in the report, if there are more than the `reported` ones.
pub(super) fn warn(report: &RunReport, reported: u64) {
    let (arrivals, secs) = (report.late_arrivals, report.latest_arrival_secs);
    if arrivals <= reported || secs <= USUAL_SECS {
        return;
    }
    let text = |secs| humantime::format_duration(Duration::from_secs(secs)).to_string();
    tracing::warn!(
        "{}: the API published conversations up to {} after the watermark had passed their \
         updated_at; use --overlap {} or more, and a weekly `backfill`, because later arrivals are missed",
        counted(arrivals, "late arrival"),
        text(secs),
        text(advised(secs)).replace(' ', "")
    );
}

/// The overlap for arrivals that were `secs` late: twice that, in whole minutes.
fn advised(secs: u64) -> u64 {
    secs.saturating_mul(2).div_ceil(60).saturating_mul(60).max(LEAST_ADVISED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advises_twice_the_lateness_and_at_least_the_default() {
        assert_eq!([1, 300, 301, 3_600].map(advised), [600, 600, 660, 7_200]);
    }
}
