//! Log lines on stderr, which do not tear a progress line apart.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::args::LogFormat;
use crate::api::ApiKey;

/// What no log line shows, wherever it comes from: a server may send the key back as anything.
static SECRET: OnceLock<ApiKey> = OnceLock::new();

/// Keeps `key` out of every log line from now on.
pub(super) fn hide(key: &ApiKey) {
    // There is one key in a process; a second call would be with the same.
    let _ = SECRET.set(key.clone());
}

/// `text` as it may be shown.
pub(super) fn without_secrets(text: &str) -> String {
    SECRET.get().map_or_else(|| text.to_owned(), |key| key.redact(text))
}

/// Starts logging. `bars` are what is drawn on the terminal.
pub(super) fn start(format: LogFormat, level: Level, bars: &MultiProgress) {
    // The libraries' own chatter is for their developers.
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("decagon_lake", level);
    // What fails there is returned, and told by who asked for it.
    let filter = filter.with_target("delta_kernel", LevelFilter::OFF);
    // But for why a store lets one wait: it is sending a request again.
    let filter = if level == Level::DEBUG { filter.with_target("object_store", Level::INFO) } else { filter };
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(AroundBars(bars.clone())).with_target(false);
    let layer = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
        // A person sees the time on the wall; a log file needs it.
        LogFormat::Text if terminal => lines.without_time().with_ansi(colour()).with_filter(filter).boxed(),
        LogFormat::Text => lines.with_ansi(false).with_filter(filter).boxed(),
    };
    // Only a second call can fail, and there is none.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes to stderr with the progress line out of the way.
#[derive(Clone)]
struct AroundBars(MultiProgress);

impl Write for AroundBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // A closed stderr is no reason to stop exporting.
        let shown = without_secrets(&String::from_utf8_lossy(line));
        let _ = self.0.suspend(|| std::io::stderr().write_all(shown.as_bytes()));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AroundBars {
    type Writer = AroundBars;

    fn make_writer(&'a self) -> AroundBars {
        self.clone()
    }
}
