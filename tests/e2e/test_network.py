"""Real networks: HTTP/2 servers that close connections, certificates, proxies, and machines without CA certificates."""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from conftest import ROOT, page, run
from truth import assert_exact

sys.path.insert(0, str(ROOT / "tests" / "support"))
import forward  # noqa: E402
from certificates import Authority  # noqa: E402
from http2 import Http2, ignore, leave, refuse, serve_and_leave, serve_page  # noqa: E402
from servers import Azurite, Gcs, Moto  # noqa: E402

# No certificate of a CA, whatever the machine has.
NOBODY = {"SSL_CERT_FILE": "/nonexistent/ca.pem", "SSL_CERT_DIR": "/nonexistent"}
# Without the files in a home folder from which cloud clients take credentials.
HOMELESS = {"HOME": "/nonexistent"}
INTERVAL_SECS = 0.2


def conversation(number):
    return {"conversation_id": f"c{number}", "created_at": "2024-01-01T10:00:00Z", "updated_at": "2024-01-02T10:00:00Z",
            "messages": [{"text": f"message {number}", "created_at": "2024-01-01T10:00:00Z"}]}


# The last page is not full, so it is the last one for certain.
PAGES = [*([conversation(number), conversation(number + 100)] for number in range(11)), [conversation(11)]]
ALL = [one for some in PAGES for one in some]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def started():
    """Keeps what a test starts, and stops it at the end."""
    running = []

    def keep(one):
        running.append(one)
        return one

    yield keep
    for one in running:
        one.stop()


@pytest.fixture
def http2(authority, started):
    def start(meet=lambda *_: serve_page, certificate=None, pages=PAGES):
        return started(Http2(pages, certificate or authority.certificate(), meet))

    return start


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    server = Moto(tmp_path_factory.mktemp("moto")).start()
    yield server
    server.stop()


def error_and_hint(done):
    """The error and the hint, which are a line each."""
    *_, error, hint = [line.partition(" ERROR ")[2] for line in done.stderr.splitlines() if " ERROR " in line]
    assert hint.startswith("hint: ")
    return error, hint


# -- HTTP/2 -----------------------------------------------------------------------------------------------------------


def goaway_after(every):
    """The last request of each connection is answered, and then the server says that it goes."""
    return lambda server, connection, number: serve_and_leave if connection.requests == every else serve_page


def goaway_before(every):
    """One request of each connection is not processed, because the server goes."""
    return lambda server, connection, number: leave if connection.requests == every else serve_page


def refusing(every):
    return lambda server, connection, number: refuse if number % every == 0 else serve_page


def refusing_in_a_row(first, count):
    return lambda server, connection, number: refuse if first <= number < first + count else serve_page


CLOSING = {
    "GOAWAY after the third": (goaway_after(3), 0),
    "GOAWAY after each": (goaway_after(1), 0),
    "GOAWAY instead of the third": (goaway_before(3), 5),
    "REFUSED_STREAM": (refusing(3), 5),
    "REFUSED_STREAM nine times": (refusing_in_a_row(4, 9), 9),
}


@pytest.mark.parametrize("name", CLOSING)
def test_a_server_that_closes_or_refuses_costs_no_try_and_the_pace_is_kept(http2, authority, lake, name):
    meet, unprocessed = CLOSING[name]
    api = http2(meet)
    done = run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 5, "--max-tries", 1, "--json",
               **authority.trusted)
    assert set(api.protocols) == {"h2"}
    assert_exact(lake, ALL)
    assert len(api.times) == len(PAGES) + unprocessed, "each page was sent once"
    # Single gaps depend on how busy this machine is. One request that is retried at once makes the sum too short.
    assert api.times[-1] - api.times[0] >= INTERVAL_SECS * (len(api.times) - 1.5), "all requests keep the interval"
    assert json.loads(done.stdout)["retries"] == unprocessed
    assert "trying again" not in done.stderr


def test_a_server_that_refuses_for_ever_ends_the_run(http2, authority, lake):
    api = http2(lambda *_: refuse)
    done = run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0, "--max-tries", 2, code=4,
               **authority.trusted)
    assert "gave up after 2 tries" in done.stderr and len(api.times) < 20


def test_a_connection_that_went_silent_is_left_after_a_timeout(http2, authority, lake):
    # The first two connections answer three requests and then no more, though they stay open; the third is sound.
    api = http2(lambda _, connection, __: ignore if connection.number < 3 and connection.requests > 3 else serve_page)
    run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 10, "--max-tries", 2, "--timeout", "1s",
        **authority.trusted)
    assert_exact(lake, ALL)
    assert api.on == [1] * 4 + [2] * 4 + [3] * 6, "no try was spent on a connection that had gone silent"


# -- certificates -----------------------------------------------------------------------------------------------------


def test_without_any_ca_all_that_needs_no_tls_works(simulate, tmp_path, moto):
    run("demo", "--lake", tmp_path / "demo", "--conversations", 50, key=None, **NOBODY)
    api = simulate("--conversations", 50)
    sync = ["--base-url", api.url, "--requests-per-second", 0]
    for lake, store in ((tmp_path / "lake", {}), (moto.lake("without-ca"), moto.environment)):
        for form in ("parquet", "delta"):
            run("sync", "--lake", f"{lake}-{form}", "--format", form, *sync, **NOBODY, **store)
            run("status", "--lake", f"{lake}-{form}", key=None, **NOBODY, **store)


@pytest.mark.parametrize(
    "lacking, named",
    [
        (NOBODY, "/nonexistent/ca.pem"),
        ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": "/nonexistent"}, "SSL_CERT_FILE"),
        ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
    ],
    ids=["missing", "empty", "no PEM"],
)
def test_without_any_ca_https_ends_at_once_and_says_what_to_set(http2, moto, lake, lacking, named):
    api = http2()
    error, hint = error_and_hint(run("sync", "--lake", lake, "--base-url", api.url, code=4, **lacking))
    assert api.url in error and "UnknownIssuer" in error
    assert named in hint and "set SSL_CERT_FILE" in hint and not api.times
    store = {**moto.environment, "AWS_ENDPOINT_URL": api.url}
    error, hint = error_and_hint(run("status", "--lake", "s3://data/x", key=None, code=5, **store, **lacking))
    assert "UnknownIssuer" in error and named in hint and "set SSL_CERT_FILE" in hint


class TlsFront:
    """HTTPS in front of a server that speaks HTTP; passes on the responses of object stores."""

    def __init__(self, target, certificate):
        self.target, self.asked = forward.urlsplit(target), 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.listener = forward.socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.context = context
        Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            Thread(target=self.attend, args=(plain,), daemon=True).start()

    def attend(self, plain):
        try:
            with self.context.wrap_socket(plain, server_side=True) as client:
                with forward.socket.create_connection((self.target.hostname, self.target.port)) as server:
                    self.asked += 1
                    Thread(target=forward.Forward.pump, args=(server, client), daemon=True).start()
                    forward.Forward.pump(client, server)
        except OSError:
            pass  # one of them has hung up, or the certificate is not trusted

    def stop(self):
        self.listener.close()


def test_a_ca_of_ones_own_is_trusted_by_api_and_store(http2, authority, started, moto):
    api = http2(pages=PAGES[:2])
    front = started(TlsFront(moto.url, authority.certificate()))
    store = {**moto.environment, "AWS_ENDPOINT_URL": front.url, **authority.trusted}
    lake = moto.lake("own-ca")
    run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0, **store)
    status = json.loads(run("status", "--lake", lake, "--json", key=None, **store).stdout)
    assert status["tables"]["conversations"]["rows"] == 4 and front.asked


UNTRUSTED = {
    "expired": ("has expired", lambda authority, folder: authority.expired()),
    "not valid yet": ("not valid yet", lambda authority, folder: authority.early()),
    "another host": ("elsewhere.example", lambda authority, folder: authority.certificate("elsewhere.example")),
    "unknown issuer": ("comes from a CA that is not trusted", lambda authority, folder: Authority(folder / "other").certificate()),
    "a CA's own": ("CA:TRUE", lambda authority, folder: authority.of_itself(folder)),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_the_hint_says_what_is_wrong_with_a_certificate(http2, authority, moto, lake, tmp_path, name):
    (tmp_path / "other").mkdir()
    words, make = UNTRUSTED[name]
    api = http2(certificate=make(authority, tmp_path))
    store = {**moto.environment, "AWS_ENDPOINT_URL": api.url}
    ends = [run("sync", "--lake", lake, "--base-url", api.url, code=4, **authority.trusted),
            run("status", "--lake", "s3://data/x", key=None, code=5, **store, **authority.trusted)]
    for done in ends:
        error, hint = error_and_hint(done)
        assert "invalid peer certificate" in error and words in hint
        assert "trying again" not in done.stderr
        others = {other for other, _ in UNTRUSTED.values()} - {words}
        assert not any(other in hint for other in others)


def test_a_server_without_tls_is_named(simulate, lake):
    api = simulate("--conversations", 10)
    _, hint = error_and_hint(run("sync", "--lake", lake, "--base-url", api.url.replace("http:", "https:"), code=4))
    assert "does not speak TLS" in hint


# -- proxies ----------------------------------------------------------------------------------------------------------


def through(url):
    """The environment that names a proxy for everything, in both spellings."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {name: url for upper in names for name in (upper, upper.lower())}


WITHOUT_PROXY = {**through(""), "NO_PROXY": "", "no_proxy": ""}


@pytest.fixture
def recorder(started):
    """A proxy that answers whatever it is asked, and notes it."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.server.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_PUT = do_POST = do_HEAD = do_CONNECT = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.stop = [], server.shutdown
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return started(server)


STORES = {"moto": Moto, "azurite": Azurite, "gcs": Gcs}


@pytest.mark.parametrize("name", STORES)
def test_a_store_on_this_machine_is_asked_without_a_proxy(simulate, recorder, started, tmp_path, name):
    store = started(STORES[name](tmp_path / name).start())
    api = simulate("--conversations", 50)
    run("sync", "--lake", store.lake("direct"), "--base-url", api.url, "--requests-per-second", 0,
        **{**WITHOUT_PROXY, **through(recorder.url)}, **store.environment)
    assert not recorder.asked


METADATA = {
    "an instance of AWS": ("s3://data/x", {}),
    "a container of ECS": ("s3://data/x", {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"}),
    "a pod of EKS": ("s3://data/x", {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "TOKEN",
    }),
    "a pod of EKS with IPv6": ("s3://data/x", {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[fd00:ec2::23]/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "TOKEN",
    }),
    "a machine of Google": ("gs://data/x", {}),
    "a machine of Azure": ("az://data/x", {"AZURE_STORAGE_ACCOUNT_NAME": "account"}),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_is_never_asked_for_through_a_proxy(recorder, tmp_path, name):
    lake, environment = METADATA[name]
    token = tmp_path / "token"
    token.write_text("a-token")
    environment = {name: token if value == "TOKEN" else value for name, value in environment.items()}
    run("status", "--lake", lake, "--store-retries", 0, key=None, code=5,
        **{**WITHOUT_PROXY, **through(recorder.url)}, **HOMELESS, AWS_REGION="us-east-1", **environment)
    assert not recorder.asked, "credentials would have come from the proxy"


@pytest.mark.parametrize("kind", [forward.Http, forward.Socks5])
def test_all_else_is_asked_through_the_proxy(simulate, started, lake, kind):
    api, store = simulate("--conversations", 50), started(Gcs(None).start())
    proxy = started(kind(api.url))
    asked = ["--base-url", "http://api.example.test", "--allow-http", "--requests-per-second", 0, "--max-tries", 1]
    run("sync", "--lake", lake, *asked, **{**WITHOUT_PROXY, "ALL_PROXY": proxy.url})
    assert_exact(lake, api.conversations())
    assert proxy.asked and all("api.example.test" in host for host in proxy.asked)

    proxy = started(kind(store.url))
    run("sync", "--lake", store.lake("proxied"), "--base-url", api.url, "--requests-per-second", 0,
        **{**store.environment, "GOOGLE_BASE_URL": "http://store.example.test", **WITHOUT_PROXY, "ALL_PROXY": proxy.url})
    assert proxy.asked and all("store.example.test" in host for host in proxy.asked)


@pytest.mark.parametrize("kind", [forward.Http, forward.Socks5])
def test_tls_goes_through_a_proxy_and_stays_http2(http2, authority, started, lake, kind):
    api = http2()
    proxy = started(kind(api.url))
    run("sync", "--lake", lake, "--base-url", "https://api.example.test", "--requests-per-second", 0,
        **{**WITHOUT_PROXY, "HTTPS_PROXY": proxy.url}, **authority.trusted)
    assert_exact(lake, ALL)
    assert proxy.asked == ["api.example.test:443"] and api.protocols == ["h2"]


def test_no_proxy_is_heeded(recorder, moto, lake):
    asked = ["--base-url", "http://api.example.test", "--allow-http", "--max-tries", 1]
    proxied = {**WITHOUT_PROXY, **through(recorder.url)}
    run("sync", "--lake", lake, *asked, code=3, **proxied)
    assert len(recorder.asked) == 1, "it answered"
    for exempt in ("api.example.test", ".example.test", "other, example.test"):
        run("sync", "--lake", lake, *asked, code=4, **{**proxied, "NO_PROXY": exempt})
    store = {**moto.environment, "AWS_ENDPOINT_URL": "http://store.example.test", "NO_PROXY": "store.example.test"}
    run("status", "--lake", "s3://data/x", "--store-retries", 0, key=None, code=5, **{**proxied, **store})
    assert len(recorder.asked) == 1


NO_PROXIES = ["socks://127.0.0.1:1080", "ftp://127.0.0.1:21", "\"http://127.0.0.1:3128\"", "http://", "http://host:port/",
              "http://user:secret-pass@host:99999"]


@pytest.mark.parametrize("value", NO_PROXIES)
def test_an_invalid_proxy_is_refused_at_once(moto, lake, value):
    asked = ["sync", "--lake", lake, "--base-url", "http://api.example.test", "--allow-http"]
    for variable in ("HTTP_PROXY", "ALL_PROXY"):
        environment = {**WITHOUT_PROXY, variable: value}
        error, hint = error_and_hint(run(*asked, code=2, **environment))
        assert variable in error and "socks5h://" in hint and "secret-pass" not in error + hint
        store = {**moto.environment, "AWS_ENDPOINT_URL": "http://store.example.test"}
        error, _ = error_and_hint(run("status", "--lake", "s3://data/x", key=None, code=2, **store, **environment))
        assert variable in error
    assert not lake.exists()
    # Hosts that are asked directly or are exempt need no proxy.
    environment = {**WITHOUT_PROXY, "ALL_PROXY": value}
    run("status", "--lake", moto.lake("nothing"), key=None, code=2, **moto.environment, **environment)
    run(*asked, "--max-tries", 1, code=4, **{**environment, "NO_PROXY": "example.test"})
