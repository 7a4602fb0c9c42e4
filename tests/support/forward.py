"""Forward proxies, of HTTP and of SOCKS, that lead every host to one server on loopback and note which hosts they were
asked for. So a test can use names that no resolver knows."""

import socket
import struct
import threading
from urllib.parse import urlsplit


class Forward:
    """What the proxies have in common. `target` is the address of the server behind every name."""

    def __init__(self, target):
        target = urlsplit(target)
        self.target, self.asked, self.lock = (target.hostname, target.port), [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.attend, args=(connection,), daemon=True).start()

    def attend(self, client):
        try:
            with client, socket.create_connection(self.target) as server:
                first = self.open(client)
                server.sendall(first)
                threading.Thread(target=self.pump, args=(server, client), daemon=True).start()
                self.pump(client, server)
        except OSError:
            pass  # one of the two has hung up

    def note(self, host):
        with self.lock:
            self.asked.append(host)

    @staticmethod
    def pump(source, sink):
        try:
            while block := source.recv(65_536):
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction reports it

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def received(client, count):
    if block := client.recv(count):
        return block
    raise ConnectionResetError("it hung up before it said what it wants")


def exactly(client, count):
    block = b""
    while len(block) < count:
        block += received(client, count - len(block))
    return block


class Http(Forward):
    """Opens tunnels (CONNECT), and passes on requests for http://."""

    scheme = "http"

    def open(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += received(client, 65_536)
        method, address, _ = head.split(b" ", 2)
        self.note(address.decode())
        if method != b"CONNECT":
            return head
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return b""


class Socks5(Forward):
    """SOCKS5 without a password; the client leaves names to the proxy (socks5h)."""

    scheme = "socks5h"

    def open(self, client):
        _, methods = exactly(client, 2)
        exactly(client, methods)
        client.sendall(b"\x05\x00")
        _, _, _, kind = exactly(client, 4)
        length = {1: 4, 4: 16}.get(kind) or exactly(client, 1)[0]
        host = exactly(client, length)
        [port] = struct.unpack("!H", exactly(client, 2))
        self.note(f"{host.decode() if kind == 3 else host.hex()}:{port}")
        client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        return b""
