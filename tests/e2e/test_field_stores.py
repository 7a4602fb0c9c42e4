"""What stores answer in the field: credentials that expire, archives, limits of one object, checksums, slow uploads.

The stores of servers.py do not answer so by themselves; a proxy in front of them does, with the words that the clouds
document, or the stand-in for GCS itself.
"""

import json
import sys
import threading
import time
from contextlib import contextmanager, nullcontext

import pytest
from conftest import ROOT, run
from test_stores import SMALL, Place, behind_proxy, server  # noqa: F401
from truth import assert_exact, files

sys.path.insert(0, str(ROOT / "tests" / "support"))
from proxy import LOST  # noqa: E402
from servers import SERVERS, until  # noqa: E402


def error(code, message, detail=""):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{detail}</Error>".encode()


AZURE = "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly."


def detail(text):
    return f"<AuthenticationErrorDetail>{text}</AuthenticationErrorDetail>"


ANSWERS = [
    ("moto", 400, error("ExpiredToken", "The provided token has expired."), "AWS_SESSION_TOKEN"),
    ("moto", 400, error("ExpiredTokenException", "The security token included in the request is expired"), "AWS_SESSION_TOKEN"),
    ("moto", 400, error("TokenRefreshRequired", "The provided token must be refreshed."), "AWS_SESSION_TOKEN"),
    ("moto", 403, error("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
     "clock of this machine"),
    ("moto", 403, error("RequestExpired", "Request has expired"), "have expired"),
    ("azurite", 403, error("AuthenticationFailed", AZURE, detail("Signature not valid in the specified time frame: Start [a]")),
     "AZURE_STORAGE_SAS_TOKEN"),
    ("azurite", 401, error("InvalidAuthenticationInfo", "Lifetime validation failed. The token is expired."), "have expired"),
    ("azurite", 403, error("AuthenticationFailed", AZURE, detail("Request date header too old: 'x'")), "clock of this machine"),
    ("gcs", 403, error("RequestTimeTooSkewed", "The difference is too large."), "clock of this machine"),
    ("moto", 503, error("SlowDown", "Please reduce your request rate."), "--store-concurrency"),
    ("moto", 429, error("TooManyRequests", "Reduce your concurrent request rate for the same object."), "--store-concurrency"),
    ("gcs", 429, error("SlowDown", "The rate of requests exceeds the limit."), "--store-concurrency"),
    ("azurite", 503, error("ServerBusy", "The server is currently unable to receive requests."), "--store-concurrency"),
]


@pytest.mark.parametrize("name, status, body, hint", ANSWERS, ids=lambda value: None if isinstance(value, bytes) else str(value))
def test_an_answer_has_its_own_hint(behind_proxy, simulate, name, status, body, hint):  # noqa: F811
    place, proxy = behind_proxy(name)
    proxy.before = lambda *_: (status, body)
    api = simulate(*SMALL)
    for command, asked in (("sync", api), ("check", api), ("status", None), ("verify", None)):
        done = place.command(command, asked, "--store-retries", 0, code=5)
        assert hint in done.stdout + done.stderr, (command, done.stdout, done.stderr)
    assert api.gaps()[0] == 1, "by the check alone"


def test_a_date_in_an_archive_does_not_hold_up_the_others(behind_proxy, simulate):  # noqa: F811
    place, proxy = behind_proxy("moto")
    api = simulate(*SMALL)
    place.command("sync", api)
    api.advance(hours=30)
    dates = sorted({key.split("/")[1] for key in place.objects("messages/")})
    archived = f"messages/{dates[-2]}/part-0.parquet"

    def archive(kind, path, _):
        if kind == "get" and archived.replace("=", "%3D") in path.replace("=", "%3D"):
            return 403, error("InvalidObjectState", "The operation is not valid for the object's storage class")

    proxy.before = archive
    done = place.command("sync", api, "--json", code=5)
    assert "InvalidObjectState" in done.stderr and archived in done.stderr and "restore-object" in done.stderr
    report = json.loads(done.stdout)
    compacted = {f"created_date={date}" for date in report["compacted_dates"]}
    assert dates[-1] in compacted and dates[-2] not in compacted and len(compacted) >= 3
    assert {key.split("/")[2] for key in place.objects("_landing/")} == {dates[-2]}
    output = place.command("verify", code=6).stdout
    assert archived in output and "InvalidObjectState" in output
    # The next run reads the staged file once it is back.
    proxy.before = None
    place.command("compact")
    place.assert_exact(api.conversations())


def test_staged_files_in_an_archive_are_not_discarded(behind_proxy, simulate):  # noqa: F811
    place, proxy = behind_proxy("moto")
    api = simulate(*SMALL)
    place.command("export", api)
    before = place.objects("_landing/")

    def archive(kind, path, _):
        if kind == "get" and "_landing/tags/" in path and "list-type" not in path:
            return 403, error("InvalidObjectState", "The operation is not valid for the object's storage class")

    proxy.before = archive
    done = place.command("verify", None, "--repair", code=5)
    assert "restore-object" in done.stderr
    proxy.before = None
    assert place.objects("_landing/") == before
    place.command("compact")
    place.assert_exact(api.conversations())


@pytest.mark.parametrize("name, deletion", [("azurite", "post"), ("moto", "bulk_delete"), ("gcs", "delete")])
def test_deletions_whose_response_is_lost_are_repeated(behind_proxy, simulate, name, deletion):  # noqa: F811
    place, proxy = behind_proxy(name)
    lost = []

    def lose(kind, *_):
        if kind == deletion and len(lost) < 2:
            lost.append(kind)
            return LOST

    api = simulate(*SMALL)
    for hours in (0, 30):
        proxy.before, lost[:] = lose, []
        api.advance(hours=hours)
        place.command("sync", api)
        proxy.before = None
        assert len(lost) == 2 and not place.objects("_landing/")
        place.assert_exact(api.conversations())


CHECKSUMS = {"content-md5", "x-amz-checksum-sha256", "x-amz-checksum-crc64nvme"}
OBJECT_LOCK = error("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with "
                                      "Object Lock parameters")


def test_a_bucket_with_object_lock_wants_checksums(behind_proxy, simulate):  # noqa: F811
    place, proxy = behind_proxy("moto")
    proxy.before = lambda kind, _, headers: (400, OBJECT_LOCK) if kind in ("put", "part") and not headers & CHECKSUMS else None
    api = simulate(*SMALL)
    for command in ("check", "sync"):
        done = place.command(command, api, code=5)
        assert "AWS_CHECKSUM_ALGORITHM=sha256" in done.stdout + done.stderr
    place.environment["AWS_CHECKSUM_ALGORITHM"] = "sha256"
    assert place.command("check", api).stdout.count("\nok  ") == 8
    for hours in (0, 30):
        api.advance(hours=hours)
        place.command("sync", api)
        place.assert_exact(api.conversations())


class OncePerSecond:
    """R2 takes one write of an object in a second, and answers the next with 429."""

    def __init__(self):
        self.written, self.refused = {}, 0

    def __call__(self, kind, path, _):
        if kind not in ("put", "delete", "complete"):
            return None
        now, last = time.monotonic(), self.written.get(path, -1)
        if now - last < 1:
            self.refused += 1
            return 429, error("TooManyRequests", "Reduce your concurrent request rate for the same object.")
        self.written[path] = now


@contextmanager
def gcs_limits(store):
    store.limits_changes = True
    try:
        yield
    finally:
        store.limits_changes, store.refused_changes = False, 0


@pytest.mark.parametrize("name", ["gcs", "moto"])
def test_one_write_of_an_object_in_a_second_is_enough(behind_proxy, simulate, name):  # noqa: F811
    place, proxy = behind_proxy(name)
    api = simulate(*SMALL)
    proxy.before = r2 = OncePerSecond() if name == "moto" else None
    store = getattr(place.server, "store", None)
    with gcs_limits(store) if store else nullcontext():
        assert place.command("check", api).stdout.count("\nok  ") == 8
        assert r2.refused if r2 else store.refused_changes, "the second write was refused"
        for hours in (0, 30):
            api.advance(hours=hours)
            place.command("sync", api)
    proxy.before = None
    place.assert_exact(api.conversations())


@pytest.mark.parametrize("renewal_is_lost", [False, True])
def test_a_holder_keeps_the_lake_while_its_uploads_hang(behind_proxy, server, simulate, tmp_path, renewal_is_lost):  # noqa: F811
    """All calls that a run may have under way are uploads that never end, and a renewal of its lease is
    never answered: the next one goes out in time, and another run is refused."""
    place, proxy = behind_proxy("moto")
    goes_on, held, lost = threading.Event(), [], []

    def hold(kind, path):
        if goes_on.is_set() or kind != "put":
            return None
        if "/_landing/" in path:
            held.append(path)
            return goes_on
        if renewal_is_lost and "/_state/leases/" in path and len(held) == 2 and not lost:
            lost.append(path)
            return goes_on

    proxy.hold = hold
    api = simulate(*SMALL)
    first = place.begin("sync", api, "--store-concurrency", 2)
    try:
        until(lambda: len(held) == 2 and bool(lost) == renewal_is_lost, "both uploads")
        beside = Place("moto", server("moto"), tmp_path)
        beside.prefix, beside.url = place.prefix, place.url
        refused = beside.command("sync", api, code=7)
        assert f"process {first.pid}" in refused.stderr and len(held) == 2
    finally:
        goes_on.set()
    assert first.wait(timeout=60) == 0
    place.assert_exact(api.conversations())


ACCOUNTS = ["external_account", "external_account_authorized_user", "impersonated_service_account", "gdch_service_account"]


@pytest.mark.parametrize("where", ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "HOME"])
@pytest.mark.parametrize("kind", ACCOUNTS)
def test_google_s_credentials_of_other_kinds_are_refused_by_name(simulate, tmp_path, kind, where):
    text = json.dumps({"type": kind, "audience": "//iam.googleapis.com/x", "client_secret": "d-FL95Q19q7MQmFpd7hHD0Ty"})
    file = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    value = {"HOME": tmp_path, "GOOGLE_SERVICE_ACCOUNT_KEY": text}.get(where, file)
    api = simulate(*SMALL)
    for command in (["sync", "--base-url", api.url], ["check", "--base-url", api.url], ["status"]):
        done = run(*command, "--lake", "gs://bucket/lake", code=2, **{where: value})
        assert kind in done.stderr and "GOOGLE_BEARER_TOKEN" in done.stderr and "d-FL95Q19" not in done.stderr
        assert where == "HOME" or where in done.stderr
    assert api.gaps()[0] == 0
