//! The progress of a walk, for display.

use chrono::{DateTime, Utc};

use crate::model::Window;

/// A snapshot of a running walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The window of the walk.
    pub window: Window,
    /// When this run began.
    pub started_at: DateTime<Utc>,
    /// Pages fetched by this run.
    pub pages: u64,
    /// Versions of conversations fetched by this run.
    pub conversations: u64,
    /// The newest time on the first page, of the kind that the window bounds: about where the history begins.
    pub first: Option<DateTime<Utc>>,
    /// The newest time on the last page so far.
    pub reached: Option<DateTime<Utc>>,
}

impl Progress {
    /// Makes the snapshot of a walk that has not fetched anything yet.
    pub fn new(window: Window, started_at: DateTime<Utc>) -> Self {
        Progress { window, started_at, pages: 0, conversations: 0, first: None, reached: None }
    }

    /// Estimates the part of the history that is done, from 0 to 1, by the times seen.
    pub fn fraction(&self) -> Option<f64> {
        let end = self.window.to.map_or(self.started_at, |to| to.min(self.started_at));
        let begin = self.first?;
        let (done, whole) = ((self.reached? - begin).num_seconds(), (end - begin).num_seconds());
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        (whole > 0).then(|| (done as f64 / whole as f64).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_follows_the_times_seen() {
        let at = |secs| DateTime::from_timestamp(secs, 0).unwrap();
        let mut progress = Progress::new(Window::EVERYTHING, at(1_000));
        assert_eq!(progress.fraction(), None);
        progress.first = Some(at(600));
        progress.reached = Some(at(700));
        assert_eq!(progress.fraction(), Some(0.25));
        progress.reached = Some(at(5_000));
        assert_eq!(progress.fraction(), Some(1.0));
    }
}
