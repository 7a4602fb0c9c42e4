"""The asset in `examples/dagster`, materialized by Dagster itself."""

import importlib.util
import os
import re
import sys
import threading
import time
from datetime import datetime

import dagster as dg
import pytest
from conftest import KEY, PATIENCE_SECS, ROOT
from truth import assert_exact


@pytest.fixture
def example(packages, monkeypatch, tmp_path):
    """The example's module; Dagster keeps what it stores in the test's folder."""
    for name in [name for name in os.environ if name.startswith("DECAGON_")]:
        monkeypatch.delenv(name)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(packages)
    spec = importlib.util.spec_from_file_location("lake", ROOT / "examples" / "dagster" / "lake.py")
    module = importlib.util.module_from_spec(spec)
    # Dagster resolves the names in the asset's annotations there.
    monkeypatch.setitem(sys.modules, "lake", module)
    spec.loader.exec_module(module)
    return module


def until(happened, what):
    deadline = time.monotonic() + PATIENCE_SECS
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def materialize(example):
    """Materializes the asset in an instance of its own."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield lambda: dg.materialize([example.support_conversations], instance=instance, raise_on_error=False)


@pytest.fixture
def account(simulate, monkeypatch, lake):
    """The settings of the example, which come by the environment, for a simulated account."""
    api = simulate("--conversations", 310, "--days", 9)
    settings = {"LAKE": lake, "API_KEY": KEY, "BASE_URL": api.url, "REQUESTS_PER_SECOND": 0}
    for name, value in settings.items():
        monkeypatch.setenv(f"DECAGON_{name}", str(value))
    return api


def test_the_materialization_says_what_the_run_did(materialize, account, lake):
    for hours in (0, 30):
        account.advance(hours=hours)
        result = materialize()
        assert result.success
        assert_exact(lake, account.conversations())
    [event] = result.asset_materializations_for_node("support_conversations")
    said = {name: value.value for name, value in event.metadata.items()}
    report = said["report"]
    assert said["dagster/row_count"] == len(account.conversations()) > 310
    assert said["staged"] == report["landed_rows"]["conversations"] > 0
    assert said["duplicates"] == report["duplicates_resolved"] > 0
    assert 0 < said["duration (s)"] < 300
    assert said["watermark"] == pytest.approx(datetime.fromisoformat(report["watermark"]).timestamp())


def test_a_refusal_fails_the_materialization_at_once(materialize, account, monkeypatch, serve):
    monkeypatch.setenv("DECAGON_BASE_URL", serve((401, {}, "no")).url)
    result = materialize()
    assert not result.success and result.retry_attempts_for_node("support_conversations") == 0
    [event] = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    assert "does not accept the API key" in failure.description
    assert failure.metadata["report"].value["outcome"] == "failed"


@pytest.mark.parametrize("answer, again", [(401, False), (500, True)])
def test_only_what_a_retry_helps_is_tried_again(example, account, monkeypatch, serve, answer, again):
    monkeypatch.setenv("DECAGON_BASE_URL", serve((answer, {}, "no")).url)
    monkeypatch.setenv("DECAGON_MAX_TRIES", "1")
    with pytest.raises(dg.Failure) as failure:
        list(example.support_conversations(dg.build_asset_context()))
    assert failure.value.allow_retries == again
    assert example.support_conversations.op.retry_policy.max_retries > 0


def test_a_held_lake_skips_what_depends_on_it(example, account, lake):
    @dg.asset(deps=[example.support_conversations])
    def downstream():
        pass

    account.hold(after=1)
    run = threading.Thread(target=example.decagon_lake.export, args=(lake,))
    run.start()
    try:
        until(lambda: account.gaps()[0] > 1, "no request")
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([example.support_conversations, downstream], instance=instance)
    finally:
        account.release()
        run.join(PATIENCE_SECS)
    assert result.success and result.get_asset_materialization_events() == []
    assert {event.step_key for event in result.all_events if event.is_step_skipped} == {"downstream"}


def test_its_lines_for_dagster_yaml_limit_the_pool_and_show_the_log(example, tmp_path):
    lines = re.findall(r"^    (\w+: \{.*\})$", example.__doc__, re.MULTILINE)
    (tmp_path / "dagster.yaml").write_text("\n".join(["telemetry: {enabled: false}", *lines]))
    with dg.DagsterInstance.get() as instance:
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert instance.managed_python_loggers == ["decagon_lake"] and instance.python_log_level == "INFO"
        instance.event_log_storage.initialize_concurrency_limit_to_default(example.support_conversations.op.pool)
        assert instance.event_log_storage.get_concurrency_info(example.support_conversations.op.pool).slot_count == 1


def test_its_schedule_runs_the_asset(example):
    dg.Definitions.validate_loadable(example.definitions)
    [schedule] = example.definitions.schedules
    assert schedule.cron_schedule == "5 * * * *"
    job = example.definitions.get_repository_def().get_job(schedule.job_name)
    assert set(job.asset_layer.selected_asset_keys) == {example.support_conversations.key}
