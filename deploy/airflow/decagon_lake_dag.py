"""Syncs a Decagon account into its lake every hour, for Airflow 3.

The workers have `decagon-lake` in their PATH and the cloud's identity. The API key is the password of the connection
`decagon`.
"""

import os
import subprocess
from datetime import datetime, timedelta

from airflow.sdk import Connection, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

LAKE = "s3://bucket/decagon"
COMMAND = ["decagon-lake", "sync", "--json", "--lake", LAKE]

# A retry may help: the API could not be reached, the store failed, or the run was stopped.
AGAIN = {4, 5, 130}
# Another run holds the lake; the next scheduled run continues.
HELD = 7
# A run that is asked to stop stages what it has within 9 seconds.
STOPS_WITHIN = 15


# No catch-up: one run fetches everything that changed.
@dag(schedule="5 * * * *", start_date=datetime(2024, 1, 1), catchup=False, max_active_runs=1, tags=["decagon"])
def decagon_lake():
    # The first run takes hours. The lake keeps what it has staged by the time-out, and the next run continues there.
    @task(retries=2, retry_delay=timedelta(minutes=1), execution_timeout=timedelta(hours=12))
    def sync():
        env = {**os.environ, "DECAGON_API_KEY": Connection.get("decagon").password}
        with subprocess.Popen(COMMAND, env=env, stdout=subprocess.PIPE, text=True) as run:
            try:
                report, _ = run.communicate()
            except BaseException:
                run.terminate()
                try:
                    run.wait(STOPS_WITHIN)
                except subprocess.TimeoutExpired:
                    run.kill()
                raise
        if run.returncode == HELD:
            raise AirflowSkipException("another run holds the lake")
        if run.returncode in AGAIN or run.returncode < 0:
            raise RuntimeError(f"decagon-lake ended with {run.returncode}: {report}")
        if run.returncode != 0:
            # A retry does not help; a person has to look at the report.
            raise AirflowFailException(f"decagon-lake ended with {run.returncode}: {report}")
        return report

    sync()


decagon_lake()
