#!/usr/bin/env bash
# What a schedule runs (cron: `5 * * * *  /path/to/hourly.sh`). Set DECAGON_LAKE and DECAGON_API_KEY or
# DECAGON_API_KEY_FILE for it.
set -u

decagon-lake sync --json >>"${REPORTS:-reports.jsonl}"
code=$?
case $code in
  0) ;;
  4 | 7 | 130) echo "not this time (exit code $code): the next run goes on from here" >&2 ;;
  6) echo "synced, but something was set aside: see _state/quarantine in the lake" >&2 ;;
  *) echo "decagon-lake failed with exit code $code" >&2 ;;
esac
exit $code
