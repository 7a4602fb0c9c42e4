//! Turns the first Ctrl-C or SIGTERM into a request to stop. A second signal, or too long a wait, ends the process.
//!
//! Guarantees: both are as safe as a kill, because a run can be killed anywhere.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::Kind;

/// The time for a run to write its rows to staging: schedulers kill after ten seconds.
const GRACE: Duration = Duration::from_secs(9);

/// Watches for signals. The first one cancels the token.
pub(super) fn watch(clock: Clock) -> CancellationToken {
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        if signal().await.is_err() {
            return;
        }
        tracing::warn!("stopping when fetched rows are safe; another signal stops at once");
        first.cancel();
        tokio::select! {
            _ = signal() => {}
            () = clock.sleep(GRACE) => {
                tracing::warn!("stopping without waiting any longer; the next run repeats the unfinished step")
            }
        }
        std::process::exit(i32::from(Kind::Interrupted.exit_code()));
    });
    token
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
