//! Writes log lines to stderr without tearing the progress line apart.
//!
//! Guarantees: no line shows the API key or the key of a policy, because every line is redacted as it is written.

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
use crate::policy::PolicyKey;

/// The key to redact. A server may send it back as any part of an answer.
static SECRET: OnceLock<ApiKey> = OnceLock::new();

/// The key of a policy's hashes, to redact.
static POLICY_SECRET: OnceLock<PolicyKey> = OnceLock::new();

/// Keeps `key` out of every log line from now on.
pub(super) fn hide(key: &ApiKey) {
    // A process has one key, so a second call would pass the same.
    let _ = SECRET.set(key.clone());
}

/// The same for the key of a policy's hashes.
pub(super) fn hide_policy_key(key: &PolicyKey) {
    let _ = POLICY_SECRET.set(key.clone());
}

/// `text` with the keys redacted.
pub(super) fn without_secrets(text: &str) -> String {
    let text = SECRET.get().map_or_else(|| text.to_owned(), |key| key.redact(text));
    POLICY_SECRET.get().map_or_else(|| text.clone(), |key| key.hide_in(&text))
}

/// Starts logging. `bars` draws the progress line on the terminal.
pub(super) fn start(format: LogFormat, level: Level, bars: &MultiProgress) {
    // Messages of libraries are for their developers.
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("decagon_lake", level);
    // It returns its errors, and the caller reports them.
    let filter = filter.with_target("delta_kernel", LevelFilter::OFF);
    // Except for the retries of the store, which explain a wait.
    let filter = if level == Level::DEBUG { filter.with_target("object_store", Level::INFO) } else { filter };
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(AroundBars(bars.clone())).with_target(false);
    let layer = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
        // Only log files need the time.
        LogFormat::Text if terminal => lines.without_time().with_ansi(colour()).with_filter(filter).boxed(),
        LogFormat::Text => lines.with_ansi(false).with_filter(filter).boxed(),
    };
    // Only a second call could fail, and nothing makes one.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Hides the progress line while it writes to stderr.
#[derive(Clone)]
struct AroundBars(MultiProgress);

impl Write for AroundBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // A closed stderr must not stop an export.
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
