#!/usr/bin/env bash
# Syncs a lake from a schedule (cron: `5 * * * *  /path/to/hourly.sh`). Set DECAGON_LAKE, and DECAGON_API_KEY or
# DECAGON_API_KEY_FILE.
set -u

decagon-lake sync --json >>"${REPORTS:-reports.jsonl}"
code=$?
case $code in
  0) ;;
  4 | 7 | 130) echo "no sync this time (exit code $code); the next run continues" >&2 ;;
  6) echo "synced, but data was quarantined or an invariant does not hold: see _state/quarantine in the lake" >&2 ;;
  *) echo "decagon-lake failed with exit code $code" >&2 ;;
esac
exit $code
