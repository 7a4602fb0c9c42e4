"""A server of the export that speaks HTTP/2 over TLS and nothing else, and behaves as real ones do.

It serves pages in turn by cursor, and keeps account of when each request came and on which connection. A test decides by
request how it is met: with its page, with GOAWAY before or after it, with REFUSED_STREAM, or with silence.
"""

import json
import socket
import ssl
import threading
import time
from urllib.parse import parse_qs, urlsplit

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes


class Connection:
    """One connection, with the number of requests on it so far."""

    def __init__(self, number, stream):
        self.number, self.stream, self.requests, self.answered, self.open = number, stream, 0, 0, True
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config=config)

    def flush(self):
        self.stream.sendall(self.h2.data_to_send())


class Http2:
    """Serves `pages` (lists of conversations). `meet`, called with the server, the connection and the number of the
    request, answers with one of the behaviours below."""

    def __init__(self, pages, certificate, meet):
        self.pages, self.meet = pages, meet
        self.times, self.on, self.asked, self.protocols = [], [], [], []
        self.connections, self.lock = 0, threading.Lock()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.attend, args=(plain,), daemon=True).start()

    def attend(self, plain):
        try:
            with self.context.wrap_socket(plain, server_side=True) as stream:
                with self.lock:
                    self.connections += 1
                    connection = Connection(self.connections, stream)
                    self.protocols.append(stream.selected_alpn_protocol())
                connection.h2.initiate_connection()
                connection.flush()
                while connection.open and (received := stream.recv(65_536)):
                    for event in connection.h2.receive_data(received):
                        if isinstance(event, h2.events.RequestReceived):
                            self.request(connection, event)
                    if connection.open:
                        connection.flush()
                # To close at once would reset the connection, and the client might miss what was sent last.
                stream.shutdown(socket.SHUT_WR)
                while stream.recv(65_536):
                    pass
        except (OSError, h2.exceptions.ProtocolError):
            pass  # the client has hung up, or does not trust the certificate

    def request(self, connection, event):
        with self.lock:
            self.times.append(time.monotonic())
            self.on.append(connection.number)
            path = dict(event.headers)[":path"]
            self.asked.append(path)
            number = len(self.times)
        connection.requests += 1
        self.meet(self, connection, number)(self, connection, event.stream_id, path)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def serve_page(server, connection, stream, path):
    """The page of the cursor."""
    [cursor] = parse_qs(urlsplit(path).query).get("cursor", ["0"])
    number = int(cursor)
    following = str(number + 1) if number + 1 < len(server.pages) else None
    body = json.dumps({"conversations": server.pages[number], "next_cursor": following}).encode()
    connection.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
    connection.h2.send_data(stream, body, end_stream=True)
    connection.answered = stream


def serve_and_leave(server, connection, stream, path):
    """The page, and GOAWAY: there will be no other on this connection."""
    serve_page(server, connection, stream, path)
    leave(server, connection, stream, path)


def leave(server, connection, stream, path):
    """GOAWAY, by which the requests after the last answered one were not processed."""
    connection.h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=connection.answered)
    connection.flush()
    connection.open = False


def refuse(server, connection, stream, path):
    """REFUSED_STREAM: this request was not processed, others may be."""
    connection.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)


def ignore(server, connection, stream, path):
    """Nothing, though the connection stays open."""
