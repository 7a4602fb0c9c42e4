"""The Spark job and `compact` come to the same tables."""

import json
import shutil
from pathlib import Path

from conftest import ROOT, assert_latest, run, served_pages
from truth import COLUMN, TABLES, files, read_table


def test_the_spark_job_writes_the_rows_that_compact_writes(simulate, serve, command, lake, tmp_path, submit):
    api = simulate("--conversations", 300, "--days", 6)
    command("sync", api)
    for hours in (20, 30):
        api.advance(hours=hours)
        command("export", api, "--flush-conversations", 60)
    odd = [tmp_path / f"odd-{by}" for by in COLUMN]
    for place, (by, column) in zip(odd, COLUMN.items()):
        account = serve(*served_pages())
        asked = ["--base-url", account.url, "--requests-per-second", 0, "--flush-conversations", 1]
        run("export", "--lake", place, *asked, "--partition-by", by)
        run("compact", "--lake", place)
        run("export", "--lake", place, *asked)
        # A staged file that no checkpoint names belongs to an incomplete flush.
        [stray] = Path(place, f"_landing/messages/{column}=2024-01-01").iterdir()
        shutil.copy(stray, stray.with_name(stray.name.replace("-0000.parquet", "-0009.parquet")))

    for place in (lake, *odd):
        out = tmp_path / f"{place.name}-by-spark"
        before = files(place, "")
        submit(ROOT / "examples" / "spark_compact.py", place, out)
        assert files(place, "") == before, "the lake stays as it was"
        resolved = json.loads(run("compact", "--lake", place, "--json").stdout)["duplicates_resolved"]
        assert resolved > 0
        for table in TABLES:
            assert read_table(out, table) == read_table(place, table), table
        if place in odd:
            assert_latest(read_table(out, "conversations"))
    assert len(read_table(lake, "conversations")) == len(api.conversations())
