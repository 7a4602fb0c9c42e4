"""Serves made pages as the export API would, without a limit, at the least cost: it shares the cores with its client.

Each response is a header made before the first request and a stretch of the file, which the kernel sends from its page
cache (`sendfile`): nothing is parsed, made or copied here. A page's cursor is its number. `GET /_requests` tells when
the requests for pages came (seconds) and the CPU time that the server has used.

    python server.py PAGES.jsonl [--first N] [--increment PAGES.jsonl]     prints its address; ends with its stdin
"""

import argparse
import json
import mmap
import os
import re
import socket
import sys
import threading
import time

CURSOR = re.compile(rb"[?&]cursor=(\d+)")
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Pages:
    """The responses of one walk: (header, where the body begins in the file, its length)."""

    def __init__(self, path, count=None):
        self.file = open(path, "rb")
        self.responses, begin = [], 0
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as lines:
            while begin < len(lines) and len(self.responses) != count:
                end = lines.find(b"\n", begin)
                self.responses.append((JSON % (end - begin), begin, end - begin))
                begin = end + 1
            _, begin, length = self.responses[-1]
            last = lines[begin:begin + length]
        # Where the walk is cut short, its last page says that it is.
        last = re.sub(rb'"next_cursor": "\d+"\}$', b'"next_cursor": null}', last)
        self.responses[-1] = (JSON % len(last) + last, 0, 0)

    def send(self, connection, cursor):
        header, offset, left = self.responses[cursor]
        connection.sendall(header, socket.MSG_MORE if left else 0)
        while left:
            sent = os.sendfile(connection.fileno(), self.file.fileno(), offset, left)
            offset, left = offset + sent, left - sent


class Server:
    """Answers requests: of the whole history, or (those with a lower bound) of what changed, read for each walk."""

    def __init__(self, pages, increment=None):
        self.pages, self.increment, self.changed, self.requests = pages, increment, None, []

    def answer(self, connection, request):
        if b"/conversation/export" not in request:
            body = json.dumps({"requests": self.requests, "cpu_secs": time.process_time()}).encode()
            return connection.sendall(JSON % len(body) + body)
        self.requests.append(time.monotonic())
        cursor = CURSOR.search(request)
        pages = self.pages
        if self.increment and b"min_timestamp=" in request:
            pages = self.changed if cursor and self.changed else Pages(self.increment)
            self.changed = pages
        pages.send(connection, int(cursor[1]) if cursor else 0)

    def converse(self, connection):
        """Answers one connection's requests; a request fits one read."""
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while request := connection.recv(16_384):
                    self.answer(connection, request)
            except ConnectionError:
                pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pages")
    parser.add_argument("--first", type=int)
    parser.add_argument("--increment")
    options = parser.parse_args()
    server = Server(Pages(options.pages, options.first), options.increment)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=server.converse, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
