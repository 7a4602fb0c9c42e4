"""A reverse proxy on loopback that counts the requests to a store, and plays the faults that the store does not have.

    with Proxy(server) as proxy:
        proxy.slow_down(every=3)
        run("sync", "--lake", server.lake("name"), **proxy.environment)
        assert proxy.counts["delete"] == 0

Requests pass as they came, the Host header included, because signatures cover it; bodies of any size flow through.
What it plays, and on which servers that can be believed:
- `slow_down`, `refuse_conditions` and what `before` and `after` answer: on all;
- `ignore_conditions`, a store that writes whatever a condition says: on moto without `iam` and on GCS, which check no
  signatures. SeaweedFS and Azurite refuse the request, as its signature covers the headers that are taken away.
Both kinds of conditions are those of writes; reads keep theirs.
"""

import collections
import contextlib
import http.client
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 1 << 18
CONDITIONS = ("if-match", "if-none-match", "x-goog-if-generation-match")
COPIES = ("x-amz-copy-source", "x-goog-copy-source", "x-ms-copy-source")
HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect")
DROP = "drop"  # in place of an answer: the connection is closed


def refusal(status, code, message):
    """An answer as S3 words its errors."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return status, {"Content-Type": "application/xml"}, body.encode()


SLOW_DOWN = refusal(503, "SlowDown", "Please reduce your request rate.")
NOT_IMPLEMENTED = refusal(501, "NotImplemented", "A header implies functionality that is not implemented.")


class Gone(Exception):
    """The client went away in the middle of a request."""


class Request:
    """One request, as `before` and `after` see it. Its body stays on the wire."""

    def __init__(self, method, target, headers):
        self.method, self.target, self.headers = method, target, headers
        parts = urlsplit(target)
        self.path, self.query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        self.kind = self.find_kind()
        self.status = None  # that of the answer; None where there was none

    def find_kind(self):
        """S3's and GCS's multipart calls and Azure's blocks go by the same names."""
        method, query = self.method, self.query
        comp = query.get("comp", [None])[0]
        if method == "HEAD":
            return "head"
        if method == "GET":
            if "list-type" in query or comp == "list":
                return "list"
            return "other" if comp or "restype" in query or "uploads" in query else "get"
        if method == "PUT":
            if "partNumber" in query or comp == "block":
                return "multipart_part"
            if comp == "blocklist":
                return "multipart_complete"
            if any(name.lower() in COPIES for name in self.headers):
                return "copy"
            return "other" if comp or "restype" in query else "put"
        if method == "POST":
            if "uploads" in query:
                return "multipart_create"
            if "uploadId" in query:
                return "multipart_complete"
            return "bulk_delete" if "delete" in query or comp == "batch" else "other"
        if method == "DELETE":
            return "multipart_abort" if "uploadId" in query else "delete"
        return "other"

    @property
    def conditional(self):
        """Whether it is a write with a condition."""
        return self.method in ("PUT", "POST") and any(name.lower() in CONDITIONS for name in self.headers)

    def __repr__(self):
        return f"{self.status} {self.kind}: {self.method} {self.target}"


class Proxy:
    """In front of a server, whose `environment` it has with its own address.

    `before(request)` may return `(status, headers, body)` or `DROP`, and the server never sees the request;
    `after(request)`, with `request.status` set, may do so when the server has done what was asked: a lost answer.
    """

    def __init__(self, server):
        self.upstream = server
        self.requests = []
        self.ignore_conditions = self.refuse_conditions = False
        self.before = self.after = lambda request: None
        self.slow = None
        self.asked = 0
        self.lock = threading.Lock()

    def __enter__(self):
        self.server = Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def environment(self):
        return self.through(self.upstream.environment)

    def through(self, environment):
        """The environment of a user whose requests take the way through this proxy."""
        return {name: value.replace(self.upstream.url, self.url) for name, value in environment.items()}

    @property
    def counts(self):
        """How many requests came, by kind, whoever answered them."""
        with self.lock:
            return collections.Counter(request.kind for request in self.requests)

    def slow_down(self, every=3, kinds=None):
        """Answers one in `every` requests, of these kinds or of all, with 503 SlowDown; 0 ends it."""
        self.slow, self.asked = (every, kinds) if every else None, 0

    def reset(self):
        """Forgets the requests so far."""
        with self.lock:
            self.requests.clear()

    def own_answer(self, request):
        with self.lock:
            self.requests.append(request)
            if self.slow and (self.slow[1] is None or request.kind in self.slow[1]):
                self.asked += 1
                if self.asked % self.slow[0] == 0:
                    return SLOW_DOWN
        if self.refuse_conditions and request.conditional:
            return NOT_IMPLEMENTED
        return self.before(request)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, proxy):
        self.proxy = proxy
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        """A call that breaks off is seen by whoever made it; what else goes wrong is the fault of a test."""
        if not isinstance(sys.exc_info()[1], (Gone, OSError, http.client.HTTPException)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle_request(self):
        proxy = self.server.proxy
        request = Request(self.command, self.path, self.headers)
        answer = proxy.own_answer(request)
        body = self.body()
        if answer is not None:
            collections.deque(body, maxlen=0)
            self.own(request, answer)
            return
        address = urlsplit(proxy.upstream.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        with contextlib.closing(connection):
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered all the same
                    self.forward(request, body, connection)
                collections.deque(body, maxlen=0)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException):
                self.close_connection = True  # as the server did
                return
            request.status = response.status
            answer = proxy.after(request)
            if answer is None:
                self.answer(response)
            else:
                response.read()
                self.own(request, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = do_PATCH = handle_request

    @property
    def chunked(self):
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def body(self):
        """The body of the request, in pieces."""
        left = 0 if self.chunked else int(self.headers.get("Content-Length", 0))
        while self.chunked:
            size = int(self.line().split(b";")[0], 16)
            if size == 0:
                while self.line().strip():
                    pass
                return
            yield self.read(size)
            self.line()
        while left:
            piece = self.read(min(left, CHUNK))
            left -= len(piece)
            yield piece

    def read(self, size):
        try:
            piece = self.rfile.read(size)
        except OSError:
            raise Gone from None
        if len(piece) < size:
            raise Gone
        return piece

    def line(self):
        try:
            line = self.rfile.readline()
        except OSError:
            raise Gone from None
        if not line:
            raise Gone
        return line

    def forward(self, request, body, connection):
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        dropped = HOP_BY_HOP + (CONDITIONS if self.server.proxy.ignore_conditions and request.conditional else ())
        for name, value in self.headers.items():
            if name.lower() not in dropped:
                connection.putheader(name, value)
        if self.chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for piece in body:
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if self.chunked else piece)
        if self.chunked:
            connection.send(b"0\r\n\r\n")

    def answer(self, response):
        """Hands on what the server answers."""
        bare = self.command == "HEAD" or response.status in (204, 304)
        chunked = not bare and response.getheader("Content-Length") is None
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not bare:
            piece = response.read(CHUNK)
            if chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            elif piece:
                self.wfile.write(piece)
            if not piece:
                self.close_connection |= bool(response.length)  # the server broke off
                return

    def own(self, request, answer):
        if answer == DROP:
            request.status = None
            self.close_connection = True
            return
        request.status, headers, body = answer
        self.send_response(request.status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
