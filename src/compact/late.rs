//! Late arrivals: conversations that an increment was the first to show although they had changed before its watermark.
//!
//! Each is proof that the API publishes late. Those that come within the overlap are counted here; those that come later
//! than that are not seen at all, so the warning says what to do about them.

use std::time::Duration;

use crate::lake::RunReport;
use crate::merge::Late;

/// The shortest overlap that is ever advised: the default of `--overlap`.
const LEAST_ADVISED: u64 = 10 * 60;
/// Up to this many seconds a lag is that of any database between a time and the commit that shows it: counted, not told.
const USUAL_SECS: u64 = 1;

/// Counts late arrivals in the report.
pub(super) fn note(report: &mut RunReport, late: Late) {
    let secs = u64::try_from(late.longest_micros).unwrap_or(0).div_ceil(1_000_000);
    report.late_arrivals = report.late_arrivals.saturating_add(late.arrivals);
    report.latest_arrival_secs = report.latest_arrival_secs.max(secs);
}

/// Warns of the late arrivals in the report, if there are more than `told` already.
pub(super) fn warn(report: &RunReport, told: u64) {
    let (arrivals, secs) = (report.late_arrivals, report.latest_arrival_secs);
    if arrivals <= told || secs <= USUAL_SECS {
        return;
    }
    let text = |secs| humantime::format_duration(Duration::from_secs(secs)).to_string();
    tracing::warn!(
        "{arrivals} late arrivals: conversations came up to {} after the watermark had passed their updated_at, so the API \
         publishes late; use --overlap {} or more, and a weekly `backfill`, because what comes later than the overlap is \
         not seen",
        text(secs),
        text(advised(secs)).replace(' ', "")
    );
}

/// An overlap for arrivals that were so many seconds late: twice that, in whole minutes.
fn advised(secs: u64) -> u64 {
    secs.saturating_mul(2).div_ceil(60).saturating_mul(60).max(LEAST_ADVISED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_twice_the_lateness_and_never_less_than_the_default() {
        assert_eq!([1, 300, 301, 3_600].map(advised), [600, 600, 660, 7_200]);
    }
}
