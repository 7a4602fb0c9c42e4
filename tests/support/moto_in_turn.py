"""moto's server, one request at a time.

S3 creates an object with `If-None-Match: *` in one step. moto looks first and creates then, each request in a thread, so
that several of those that come at once would succeed.
"""

import io
import threading

from moto import server


class InTurn(server.DomainDispatcherApplication):
    turn = threading.Lock()

    def __call__(self, environ, start_response):
        # The body first: who sends slowly keeps nobody waiting.
        if length := environ.get("CONTENT_LENGTH"):
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
        with self.turn:
            return super().__call__(environ, start_response)


if __name__ == "__main__":
    server.DomainDispatcherApplication = InTurn
    server.main()
