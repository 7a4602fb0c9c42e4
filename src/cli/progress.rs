//! Shows the progress of a walk: one line on a terminal, otherwise a log line every half minute.

use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::output::duration;
use crate::clock::Clock;
use crate::counted::counted;
use crate::export::Progress;

/// The time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// The time between two drawings of the terminal's line.
const DRAW_INTERVAL: Duration = Duration::from_millis(120);

/// Shows what comes down `progress` until the run has `ended`.
pub(super) async fn show(
    progress: watch::Receiver<Option<Progress>>,
    ended: CancellationToken,
    bars: MultiProgress,
    quiet: bool,
    clock: Clock,
) {
    if std::io::stderr().is_terminal() && !quiet {
        let mut drawn = None;
        ended.run_until_cancelled(draw(progress, &mut drawn, &bars, clock)).await;
        clear(drawn, &bars);
    } else {
        ended.run_until_cancelled(log(progress, clock)).await;
    }
}

async fn draw(
    mut progress: watch::Receiver<Option<Progress>>,
    drawn: &mut Option<ProgressBar>,
    bars: &MultiProgress,
    clock: Clock,
) {
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        match now {
            Some(now) => drawn.get_or_insert_with(|| spinner(bars)).set_message(line(&now, clock.now())),
            None => clear(drawn.take(), bars),
        }
        clock.sleep(DRAW_INTERVAL).await;
    }
}

/// A line that shows that something is going on.
pub(super) fn spinner(bars: &MultiProgress) -> ProgressBar {
    let bar = bars.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(DRAW_INTERVAL);
    bar
}

/// Removes a line, if one is drawn.
pub(super) fn clear(drawn: Option<ProgressBar>, bars: &MultiProgress) {
    if let Some(bar) = drawn {
        bar.finish_and_clear();
        bars.remove(&bar);
    }
}

async fn log(mut progress: watch::Receiver<Option<Progress>>, clock: Clock) {
    let mut due = clock.instant() + LOG_INTERVAL;
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        if let Some(now) = now.filter(|_| clock.instant() >= due) {
            due = clock.instant() + LOG_INTERVAL;
            tracing::info!(pages = now.pages, conversations = now.conversations, "{}", line(&now, clock.now()));
        }
    }
}

/// Pages, conversations, the time reached, the rate and the time left, as far as they are known.
fn line(progress: &Progress, now: DateTime<Utc>) -> String {
    let mut parts =
        vec![counted(HumanCount(progress.pages), "page"), counted(HumanCount(progress.conversations), "conversation")];
    if let Some(reached) = progress.reached {
        parts.push(format!("at {}", reached.format("%Y-%m-%d %H:%M")));
    }
    let elapsed = (now - progress.started_at).to_std().unwrap_or_default();
    if let Some(rate) = (u128::from(progress.conversations) * 1_000).checked_div(elapsed.as_millis()) {
        parts.push(format!("{}/s", HumanCount(u64::try_from(rate).unwrap_or(u64::MAX))));
    }
    if let Some(fraction) = progress.fraction().filter(|fraction| *fraction > 0.0) {
        let left = Duration::try_from_secs_f64(elapsed.as_secs_f64() * (1.0 / fraction - 1.0)).unwrap_or(Duration::MAX);
        if left > Duration::from_secs(1) {
            parts.push(format!("about {} left", duration(left)));
        }
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Window;

    #[test]
    fn the_line_shows_everything_that_is_known() {
        let at = |secs| DateTime::from_timestamp(secs, 0).unwrap();
        let mut progress = Progress::new(Window::EVERYTHING, at(1_709_251_200));
        assert_eq!(line(&progress, at(1_709_251_200)), "0 pages · 0 conversations");
        progress.pages = 20;
        progress.conversations = 2_000;
        progress.first = Some(at(1_709_251_200 - 40 * 86_400));
        progress.reached = Some(at(1_709_251_200 - 30 * 86_400));
        assert_eq!(
            line(&progress, at(1_709_251_220)),
            "20 pages · 2,000 conversations · at 2024-01-31 00:00 · 100/s · about 1m left"
        );
    }
}
