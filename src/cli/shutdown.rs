//! Turns Ctrl-C and SIGTERM into a request to stop; a second one stops at once.

use tokio_util::sync::CancellationToken;

use crate::error::Kind;

/// Watches for signals; the token is cancelled by the first.
pub(super) fn watch() -> CancellationToken {
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        if signal().await.is_err() {
            return;
        }
        tracing::warn!("stopping when what is under way is safe; once more stops at once");
        first.cancel();
        if signal().await.is_ok() {
            std::process::exit(i32::from(Kind::Interrupted.exit_code()));
        }
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
