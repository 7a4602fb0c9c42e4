"""What people type and env files contain: empty variables, quotes, white space, `~`, and malformed keys."""

import os
import sys

import pytest
from conftest import KEY, ROOT, run
from truth import assert_exact

sys.path.insert(0, str(ROOT / "tests" / "support"))
from servers import Azurite, Gcs, Moto  # noqa: E402

COMMANDS = ["sync", "export", "backfill", "compact", "status", "verify", "views", "check", "simulate", "demo"]


def variables():
    """Every variable that a help text names."""
    found = set()
    for command in COMMANDS:
        words = run(command, "--help", key=None).stdout.replace("[env: ", "\0").split("\0")[1:]
        found |= {word.split("=")[0] for word in words}
    return found


# -- empty variables --------------------------------------------------------------------------------------------------


def test_an_empty_variable_is_unset(simulate, lake):
    names = variables()
    assert len(names) > 40 and {"DECAGON_LAKE", "DECAGON_JSON", "DECAGON_LOG_FORMAT", "DECAGON_PAGE_SIZE"} <= names
    empty = {name: "" for name in names}
    api = simulate("--conversations", 50)
    asked = ["--lake", lake, "--base-url", api.url, "--requests-per-second", 0]
    done = run("sync", *asked, **empty)
    assert_exact(lake, api.conversations())
    assert not done.stdout and "INFO" in done.stderr, "neither --json nor --quiet"
    run("backfill", *asked, "--from", "2024-01-01", "--to", "2024-02-01", **empty)
    for command in ("compact", "status", "verify"):
        run(command, "--lake", lake, key=None, **empty)
    run("views", "--lake", lake, "--engine", "duckdb", key=None, **empty)
    run("demo", "--conversations", 50, key=None, cwd=lake.parent, **empty)
    assert (lake.parent / "demo-lake").is_dir()


def test_what_is_needed_is_missed_if_its_variable_is_empty(tmp_path):
    done = run("sync", code=2, cwd=tmp_path, DECAGON_LAKE="")
    assert "--lake" in done.stderr and "required" in done.stderr
    done = run("sync", "--lake", "lake", code=2, cwd=tmp_path, key="", DECAGON_API_KEY_FILE="")
    assert "no API key" in done.stderr
    assert not list(tmp_path.iterdir())


STORES = {
    "moto": (Moto, ["AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_PROXY_URL", "AWS_CONDITIONAL_PUT",
                    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_ALLOW_HTTP", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_TOKEN"]),
    "azurite": (Azurite, ["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_USE_EMULATOR", "AZURE_CLIENT_ID",
                          "AZURE_FEDERATED_TOKEN_FILE", "AZURE_USE_AZURE_CLI", "IDENTITY_ENDPOINT"]),
    "gcs": (Gcs, ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_BUCKET", "SERVICE_ACCOUNT",
                  "GOOGLE_PROXY_URL"]),
}


@pytest.fixture(scope="module", params=STORES)
def store(request, tmp_path_factory):
    make, names = STORES[request.param]
    server = make(tmp_path_factory.mktemp(request.param)).start()
    yield server, names
    server.stop()


def test_an_empty_variable_of_a_cloud_is_unset(simulate, store):
    server, names = store
    api = simulate("--conversations", 50)
    run("sync", "--lake", server.lake("empty"), "--base-url", api.url, "--requests-per-second", 0,
        **{name: "" for name in names}, **server.environment)


# -- paths and addresses ----------------------------------------------------------------------------------------------

STRAY = {
    "double quotes": ('"{}"', "quotes"),
    "single quotes": ("'{}'", "quotes"),
    "one quote": ('{}"', "quotes"),
    "quotes of a word processor": ("“{}”", "quotes"),
    "backticks": ("`{}`", "quotes"),
    "a space before": (" {}", "remove it"),
    "a space after": ("{} ", "remove it"),
    "a line's end of Windows": ("{}\r", "remove it"),
    "a newline": ("{}\n", "remove it"),
    "a space that does not break": ("{}\u00a0", "remove it"),
    "a byte-order mark": ("\ufeff{}", "remove it"),
    "a zero-width space": ("{}\u200b", "remove it"),
    "a home": ("~/{}", "a shell does not expand `~`"),
    "another's home": ("~nobody/{}", "a shell does not expand `~`"),
    "a home in a URL": ("file:///~/{}", "a shell does not expand `~`"),
    "a variable": ("$HOME/{}", "a shell does not expand variables"),
    "a variable in braces": ("${{HOME}}/{}", "a shell does not expand variables"),
    "a specifier of systemd": ("%h/{}", "a shell does not expand variables"),
}
PLACES = {
    "--lake": ("DECAGON_LAKE", "lake", ["sync"]),
    "--metrics-file": ("DECAGON_METRICS_FILE", "figures.prom", ["sync", "--lake", "lake"]),
    "--base-url": ("DECAGON_BASE_URL", "http://127.0.0.1:9", ["sync", "--lake", "lake"]),
    "--api-key-file": ("DECAGON_API_KEY_FILE", "key", ["sync", "--lake", "lake"]),
    "--store-endpoint": ("DECAGON_STORE_ENDPOINT", "http://127.0.0.1:9", ["sync", "--lake", "s3://bucket/lake"]),
    "demo --lake": ("DECAGON_DEMO_LAKE", "demo", ["demo"]),
    "views --lake": ("DECAGON_LAKE", "lake", ["views", "--engine", "duckdb"]),
}


@pytest.mark.parametrize("kind", STRAY)
@pytest.mark.parametrize("place", PLACES)
def test_stray_characters_in_a_place_are_refused_and_nothing_is_made(tmp_path, place, kind):
    variable, value, command = PLACES[place]
    form, words = STRAY[kind]
    flag, value = place.split()[-1], form.format(value)
    for done in (run(*command, f"{flag}={value}", code=2, cwd=tmp_path),
                 run(*command, code=2, cwd=tmp_path, **{variable: value})):
        assert f"{flag} ({variable})" in done.stderr and "hint: " in done.stderr and words in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_password_in_such_an_address_is_not_shown(tmp_path):
    done = run("sync", "--lake", "s3://key:secret-pass@bucket/lake ", code=2, cwd=tmp_path)
    assert "secret-pass" not in done.stderr


CLOUDS = {
    "AWS_ENDPOINT_URL": ("s3://bucket/x", '"https://store.example"'),
    "AWS_SECRET_ACCESS_KEY": ("s3://bucket/x", '"secret-pass"'),
    "AWS_ACCESS_KEY_ID": ("s3://bucket/x", "secret-pass\n"),
    "AWS_WEB_IDENTITY_TOKEN_FILE": ("s3://bucket/x", "~/secret-pass"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("gs://bucket/x", "~/secret-pass.json"),
    "GOOGLE_BASE_URL": ("gs://bucket/x", "'https://store.example'"),
    "AZURE_STORAGE_ACCOUNT_KEY": ("az://container/x", "'secret-pass'"),
    "AZURE_FEDERATED_TOKEN_FILE": ("az://container/x", "$HOME/secret-pass"),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_the_same_of_a_clouds_variable_is_refused_before_any_request(name):
    lake, value = CLOUDS[name]
    others = {"AWS_REGION": "us-east-1", "AZURE_STORAGE_ACCOUNT_NAME": "account", **{name: value}}
    done = run("status", "--lake", lake, key=None, code=2, **others)
    assert name in done.stderr and "hint: " in done.stderr and "secret-pass" not in done.stderr


# -- keys -------------------------------------------------------------------------------------------------------------

SECRET = "very-secret-key-4711"
NO_KEYS = {
    "a byte-order mark": (f"\ufeff{SECRET}".encode(), "character 1"),
    "in UTF-16": (SECRET.encode("utf-16"), "UTF-16"),
    "in UTF-16 without a mark": (SECRET.encode("utf-16-le"), "UTF-16"),
    "an invisible character": ("very\u200b-secret-key".encode(), "character 5"),
    "a space that does not break": (f"{SECRET}\u00a0".encode(), "character 21"),
    "a dash of a word processor": ("very–secret-key".encode(), "character 5"),
    "in Latin-1": ("very-secrèt-key".encode("latin-1"), "byte 10"),
    "quotes": (f'"{SECRET}"\n'.encode(), "character 1"),
    "single quotes": (f"'{SECRET}'".encode(), "character 1"),
    "quotes of a word processor": (f"“{SECRET}”".encode(), "character 1"),
    "white space": (b"very-secret key", "character 12"),
    "two lines": (f"{SECRET}\n{SECRET}\n".encode(), "character 21"),
    "Bearer": (f"Bearer {SECRET}".encode(), "begins with"),
    "an env file": (f"DECAGON_API_KEY={SECRET}\n".encode(), "begins with"),
    "an escape": (f"{SECRET}\x1b".encode(), "character 21"),
    "too short": (b"very-se", "shorter than 8"),
}


@pytest.mark.parametrize("kind", NO_KEYS)
def test_an_invalid_key_is_refused_before_any_request(serve, tmp_path, kind):
    content, words = NO_KEYS[kind]
    api = serve("{}")
    (tmp_path / "key").write_bytes(content)
    asked = ["sync", "--lake", tmp_path / "lake", "--base-url", api.url]
    ends = [run(*asked, "--api-key-file", tmp_path / "key", key=None, code=2)]
    if b"\0" not in content:
        ends.append(run(*asked, key=os.fsdecode(content), code=2))
    for done in ends:
        assert words in done.stderr and "hint: " in done.stderr and "very" not in done.stderr.replace(str(tmp_path), "")
    assert not api.asked and not (tmp_path / "lake").exists()


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", "  {}\t\n\n"])
def test_a_line_around_a_key_is_none_of_it(simulate, tmp_path, around):
    api = simulate("--conversations", 10)
    (tmp_path / "key").write_bytes(around.format(KEY).encode())
    run("sync", "--lake", tmp_path / "lake", "--base-url", api.url, "--api-key-file", tmp_path / "key", key=None)


def test_the_simulator_accepts_no_key_that_a_client_would_refuse():
    done = run("simulate", "--port", 0, "--accept-key", "short", key=None, code=2)
    assert "--accept-key" in done.stderr and "shorter than 8" in done.stderr
