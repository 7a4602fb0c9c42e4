"""The DAG in `examples/airflow`. Airflow does not run here: a stand-in does with its tasks what Airflow is documented to
do."""

import importlib.util
import os
import sys
import types

import pytest
from conftest import KEY, ROOT
from truth import assert_exact


class Fail(Exception):
    pass


class Skip(Exception):
    pass


class Asset:
    def __init__(self, uri):
        self.uri = uri


@pytest.fixture
def example(packages, monkeypatch, simulate, lake):
    """The DAG's tasks and settings, on a simulated account and a lake of the test."""
    api = simulate("--conversations", 310, "--days", 9)
    for name in [name for name in os.environ if name.startswith("DECAGON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DECAGON_BASE_URL", api.url)
    monkeypatch.setenv("DECAGON_REQUESTS_PER_SECOND", "0")
    monkeypatch.syspath_prepend(packages)
    loaded = types.SimpleNamespace(api=api, tasks={}, settings={})

    def dag(**settings):
        loaded.dag = settings
        return lambda build: build

    def task(**settings):
        def decorate(function):
            loaded.tasks[function.__name__], loaded.settings[function.__name__] = function, settings
            return lambda *_: None

        return decorate

    def get(name):
        assert name == "decagon"
        return types.SimpleNamespace(password=KEY)

    sdk, exceptions = types.ModuleType("airflow.sdk"), types.ModuleType("airflow.sdk.exceptions")
    sdk.Asset, sdk.Connection = Asset, types.SimpleNamespace(get=get)
    sdk.dag, sdk.task = dag, task
    exceptions.AirflowFailException, exceptions.AirflowSkipException = Fail, Skip
    for module in (types.ModuleType("airflow"), sdk, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("dag", ROOT / "examples" / "airflow" / "decagon_lake_assets.py")
    loaded.module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded.module)
    loaded.asset, loaded.errors = loaded.module.LAKE, loaded.module.decagon_lake
    loaded.asset.uri = str(lake)
    return loaded


def test_a_sync_tells_other_dags_what_it_changed(example, lake):
    assert not example.dag["catchup"] and example.dag["max_active_runs"] == 1
    assert example.settings["sync"]["outlets"] == [example.asset] and example.settings["sync"]["retries"] > 0
    for hours in (0, 30):
        example.api.advance(hours=hours)
        events = {example.asset: types.SimpleNamespace(extra=None)}
        report = example.tasks["sync"](outlet_events=events)
        assert_exact(lake, example.api.conversations())
    said = events[example.asset].extra
    assert said["partitions"] == report["compacted_dates"] and "2024-03-02" in said["partitions"]
    assert said["conversations"] == len(example.api.conversations()) and said["watermark"].startswith("2024-03-02 ")


@pytest.mark.parametrize("code, name, kind", [
    (3, "ApiError", Fail), (4, "UnreachableError", None), (5, "StoreError", None), (6, "IntegrityError", Fail),
    (7, "HeldError", Skip), (70, "InternalError", Fail), (130, "InterruptedRunError", None), (-9, "DecagonLakeError", None),
])
def test_each_exit_code_is_a_retry_a_skip_or_a_failure(example, monkeypatch, code, name, kind):
    error = getattr(example.errors, name)

    def sync(*_, **__):
        raise error(code, "it failed")

    monkeypatch.setattr(example.errors, "sync", sync)
    with pytest.raises(kind or error, match="it failed"):
        example.tasks["sync"](outlet_events={})
