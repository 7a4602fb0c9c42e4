"""The lake as an asset of Dagster: each materialization is a sync, and says what it did.

    pip install dagster dagster-webserver decagon-lake
    export DECAGON_LAKE=s3://bucket/decagon DECAGON_API_KEY="your key"
    dagster dev -f lake.py

dagster.yaml, in DAGSTER_HOME, needs the first line so that a run waits for the one before: a pool has no limit of its own.
With the second, the event log shows the log lines of a run.

    concurrency: {pools: {default_limit: 1}}
    python_logs: {managed_python_loggers: [decagon_lake], python_log_level: INFO}
"""

from collections.abc import Iterator

import dagster as dg

import decagon_lake


@dg.asset(
    retry_policy=dg.RetryPolicy(max_retries=2, delay=60),
    # With the limit in dagster.yaml: one run at a time, because the lake refuses a second one.
    pool="decagon_lake",
    # Nothing is materialized, and what depends on it is skipped, if another run holds the lake.
    output_required=False,
)
def support_conversations(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    """Conversations, messages, tags and audit logs of the Decagon account, each conversation once."""
    try:
        report = decagon_lake.sync()
    except decagon_lake.HeldError as error:
        # The next scheduled run continues.
        context.log.warning(str(error))
        return
    except decagon_lake.DecagonLakeError as error:
        # A retry helps if the API or the store could not be reached. Otherwise a person has to look at it.
        raise dg.Failure(str(error), metadata=facts(error.report), allow_retries=error.retry_helps) from error
    yield dg.MaterializeResult(metadata=facts(report))


def facts(report: decagon_lake.Report | None) -> dict[str, dg.MetadataValue]:
    """What Dagster shows beside the asset, and plots over time."""
    if report is None:
        return {}
    metadata = {
        "dagster/row_count": dg.MetadataValue.int(report.tables.conversations.rows if report.tables else 0),
        "staged": dg.MetadataValue.int(report.staged_rows.conversations),
        "duplicates": dg.MetadataValue.int(report.duplicates_resolved),
        "late arrivals": dg.MetadataValue.int(report.late_arrivals),
        "duration (s)": dg.MetadataValue.float(report.duration.total_seconds()),
        "report": dg.MetadataValue.json(report.raw),
    }
    if report.watermark is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(report.watermark)
    return metadata


definitions = dg.Definitions(
    assets=[support_conversations],
    schedules=[
        dg.ScheduleDefinition(
            name="hourly",
            cron_schedule="5 * * * *",
            target=dg.AssetSelection.assets(support_conversations),
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
    ],
)
