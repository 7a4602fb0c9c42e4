//! Turns Ctrl-C and SIGTERM into a request to stop; a second one, or too long a wait, stops at once, which is as safe as
//! any other way to die.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::Kind;

/// How long a run may take to land what it has: schedulers kill after ten seconds.
const LONGEST: Duration = Duration::from_secs(9);

/// Watches for signals; the token is cancelled by the first.
pub(super) fn watch(clock: Clock) -> CancellationToken {
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        if signal().await.is_err() {
            return;
        }
        tracing::warn!("stopping when what is under way is safe; once more stops at once");
        first.cancel();
        tokio::select! {
            _ = signal() => {}
            () = clock.sleep(LONGEST) => tracing::warn!("stopping all the same; the next run does again what was under way"),
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
