"""A TCP proxy that is as far away as a cloud: what goes through it, either way, arrives half a round trip later.

    python delay.py HOST:PORT RTT_SECS     prints its address; ends with its stdin

For each line on its stdin it prints, as a line of JSON, what went through since the line before: the HTTP calls by
kind, the bytes either way, the most calls at a time, and the longest chain of calls of which each began after the one
before it had ended. Nothing waits for anything else: a chunk is sent on when its time has come, whatever is under way
before and after it, on the same connection and on others. So the proxy delays and does not limit. It makes connections
at once: a client pays for calls alone.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
import threading
from collections import Counter, deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "support"))
from proxy import kind  # noqa: E402

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.")
LATE_SECS = 0.0005  # On average; the system wakes a waiting process up to a millisecond late.


def longest_chain(calls):
    """The most calls (begin, end) of which each begins after the one before it has ended."""
    count, free = 0, float("-inf")
    for begin, end in sorted(calls, key=lambda call: call[1]):
        if begin >= free:
            count, free = count + 1, end
    return count


def most_at_once(calls):
    """The most calls that were under way at a time; one that ends as another begins is not."""
    now = most = 0
    for _, change in sorted([(begin, 1) for begin, _ in calls] + [(end, -1) for _, end in calls]):
        now += change
        most = max(most, now)
    return most


class Delay:
    """What is under way. All of it takes the same time, so it arrives in the order in which it was sent."""

    def __init__(self, loop, secs):
        self.loop, self.secs, self.queue, self.timer = loop, secs, deque(), None

    def later(self, action, *args):
        self.queue.append((self.loop.time() + self.secs - LATE_SECS, action, args))
        if self.timer is None:
            self.timer = self.loop.call_at(self.queue[0][0], self.arrive)

    def arrive(self):
        while self.queue and self.queue[0][0] <= self.loop.time():
            _, action, args = self.queue.popleft()
            action(*args)
        self.timer = self.loop.call_at(self.queue[0][0], self.arrive) if self.queue else None


class Calls:
    """The calls that went through, and their bytes."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.kinds, self.times, self.sent, self.received = Counter(), [], 0, 0

    def told(self):
        calls = [tuple(call) for call in self.times if call[1] is not None]
        told = {
            "calls": dict(sorted(self.kinds.items())), "sent_bytes": self.sent, "received_bytes": self.received,
            "most_at_once": most_at_once(calls), "round_trips": longest_chain(calls),
        }
        self.clear()
        return told


class End(asyncio.Protocol):
    """One end of a connection through the proxy. What it sends arrives at the other end, later."""

    def __init__(self, proxy):
        self.proxy, self.transport, self.other, self.early, self.is_closed = proxy, None, None, [], False

    def connection_made(self, transport):
        self.transport = transport
        for data in self.early:
            transport.write(data)
        if self.is_closed:
            transport.close()

    def connection_lost(self, _):
        self.proxy.delay.later(self.other.close)

    def write(self, data):
        if self.transport is None:
            self.early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def close(self):
        self.is_closed = True
        if self.transport is not None:
            self.transport.close()


class Client(End):
    """The client's end. It sees a call as the client does: from its first byte to the last one of the answer."""

    call = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self.other = Server(self.proxy)
        self.other.other = self
        self.connecting = self.proxy.loop.create_task(self.connect())

    async def connect(self):
        try:
            await self.proxy.loop.create_connection(lambda: self.other, *self.proxy.target)
        except OSError:
            self.close()

    def data_received(self, data):
        calls, request = self.proxy.calls, REQUEST.match(data)
        calls.sent += len(data)
        # Whatever comes before the answer belongs to the same call.
        if request and (self.call is None or self.call[1] is not None):
            method, path = request.groups()
            calls.kinds[kind(method.decode(), path.decode())] += 1
            self.call = [self.proxy.loop.time(), None]
            calls.times.append(self.call)
        self.proxy.delay.later(self.other.write, data)

    def write(self, data):
        super().write(data)
        self.proxy.calls.received += len(data)
        if self.call:
            self.call[1] = self.proxy.loop.time()


class Server(End):
    """The server's end."""

    def data_received(self, data):
        self.proxy.delay.later(self.other.write, data)


class Proxy:
    def __init__(self, loop, target, rtt_secs):
        self.loop, self.target, self.calls, self.delay = loop, target, Calls(), Delay(loop, rtt_secs / 2)

    def tell(self):
        print(json.dumps(self.calls.told()), flush=True)


async def serve(target, rtt_secs):
    with contextlib.suppress(PermissionError):
        os.nice(-15)  # On a busy machine, too, the delay is what it says.
    loop = asyncio.get_running_loop()
    proxy, ended = Proxy(loop, target, rtt_secs), asyncio.Event()

    def obey():
        for _ in sys.stdin:
            loop.call_soon_threadsafe(proxy.tell)
        loop.call_soon_threadsafe(ended.set)

    server = await loop.create_server(lambda: Client(proxy), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    threading.Thread(target=obey, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    asyncio.run(serve((host, int(port)), float(sys.argv[2])))
