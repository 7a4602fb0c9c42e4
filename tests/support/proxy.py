"""A proxy in front of a store that counts requests by kind, and can answer or change some of them.

The Host header goes on as the client sent it: signatures of S3 cover it. They cover the conditions of a put as well, so
those can only be taken away in front of a server that looks at no signatures (moto).
"""

import socket
import struct
import threading
from collections import Counter
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LOST = "the connection is reset, and there is no response"
CONDITIONS = {"if-match", "if-none-match", "x-goog-if-generation-match"}
SLOW_DOWN = (503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
NOT_IMPLEMENTED = (501, b"<Error><Code>NotImplemented</Code><Message>No such functionality.</Message></Error>")


def kind(method, path):
    """What a request is, for the counting."""
    url = urlsplit(path)
    query = parse_qs(url.query, keep_blank_values=True)
    if method == "GET" and ("list-type" in query or query.get("comp") == ["list"]):
        return "list"
    if "uploads" in query:
        return "begin"
    if "partNumber" in query or query.get("comp") == ["block"]:
        return "part"
    if "uploadId" in query or query.get("comp") == ["blocklist"]:
        return "abort" if method == "DELETE" else "complete"
    return "bulk_delete" if "delete" in query else method.lower()


class Proxy:
    """Stands in front of the server at `target`. `before`, if set, sees each request's kind, path and headers, and may
    answer it with a status and a body, or with LOST; `hold` sees the same, and may return an event that the request waits for."""

    def __init__(self, target):
        self.target, self.before, self.hold, self.ignores_conditions = urlsplit(target), None, None, False
        self.counts, self.total, self.lock = Counter(), 0, threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            upstream = None

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = kind(self.command, self.path)
                with proxy.lock:
                    proxy.counts[asked] += 1
                    proxy.total += 1
                    answered = proxy.before and proxy.before(asked, self.path, {n.lower() for n in self.headers})
                    held = proxy.hold and proxy.hold(asked, self.path)
                if answered == LOST:
                    return self.reset()
                if answered:
                    return self.answer(*answered, Message())
                if held:
                    held.wait()
                headers = {name: value for name, value in self.headers.items()
                           if not (proxy.ignores_conditions and name.lower() in CONDITIONS)}
                try:
                    self.upstream = self.upstream or HTTPConnection(proxy.target.hostname, proxy.target.port, timeout=60)
                    self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in headers.items():
                        self.upstream.putheader(name, value)
                    self.upstream.endheaders(body)
                    response = self.upstream.getresponse()
                    self.answer(response.status, response.read(), response.headers)
                except OSError:
                    # The server is gone, and so is the connection.
                    self.upstream, self.close_connection = None, True

            def reset(self):
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

            def answer(self, status, body, headers):
                self.send_response_only(status)
                length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{self.target.path}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def slow_down(self, every):
        """Throttles one of `every` requests."""
        self.before = lambda *_: SLOW_DOWN if self.total % every == 0 else None

    def refuse_conditions(self):
        """Answers that it has no conditional writes."""
        self.before = lambda _kind, _path, headers: NOT_IMPLEMENTED if headers & CONDITIONS else None

    def stop(self):
        self.server.shutdown()
