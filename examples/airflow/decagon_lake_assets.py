"""Syncs a Decagon account into its lake every hour, for Airflow 3, and tells other DAGs what changed.

The workers need `decagon-lake` in their requirements, and the cloud's identity. The API key is the password of the
connection `decagon`. The task's log has the lines of the run. A DAG with `schedule=[LAKE]` runs after each sync, whose
event names the partitions that changed.
"""

from datetime import datetime, timedelta

import decagon_lake
from airflow.sdk import Asset, Connection, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

LAKE = Asset("s3://bucket/decagon")


# No catch-up: one run fetches everything that changed.
@dag(schedule="5 * * * *", start_date=datetime(2024, 1, 1), catchup=False, max_active_runs=1, tags=["decagon"])
def decagon_lake_assets():
    # The first run takes hours. A run that is stopped by the time-out keeps what it has staged, and the next one
    # continues there.
    @task(outlets=[LAKE], retries=2, retry_delay=timedelta(minutes=1), execution_timeout=timedelta(hours=12))
    def sync(*, outlet_events):
        try:
            report = decagon_lake.sync(LAKE.uri, api_key=Connection.get("decagon").password)
        except decagon_lake.HeldError as error:
            # The next scheduled run continues.
            raise AirflowSkipException(str(error)) from error
        except decagon_lake.DecagonLakeError as error:
            if error.retry_helps:
                raise
            # A person has to look at it.
            raise AirflowFailException(str(error)) from error
        outlet_events[LAKE].extra = {
            "watermark": str(report.watermark),
            "partitions": list(report.compacted_partitions),
            "conversations": report.tables.conversations.rows if report.tables else 0,
        }
        return report.raw

    sync()


decagon_lake_assets()
