"""A small stand-in for the XML API of Google Cloud Storage: the part of it that `object_store` uses, in memory.

It proves that the program's requests to GCS fit together: that conditions are sent as generations, that pages of a
listing are followed, that ranges and uploads in parts are asked for as Google's documentation says. It does not prove
that Google answers as it does, nor anything of authentication, permissions, time or load: it was written from the
documentation, not against the real service. What it does not know it answers with 501 and remembers in `unknown`.
"""

import hashlib
import itertools
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

# Real pages have a thousand entries; small ones show that all are asked for.
PAGE_ENTRIES = 7


class Held:
    """An object: its bytes, its generation and when it was written."""

    def __init__(self, body, generation):
        self.body, self.generation, self.at = body, generation, time.time()
        self.etag = f'"{hashlib.md5(body).hexdigest()}"'


class Refused(Exception):
    """An answer that is an error: its status, code and message."""


class Store:
    """One bucket."""

    def __init__(self, bucket):
        self.bucket, self.objects, self.uploads, self.unknown = bucket, {}, {}, []
        # Google documents that an object may be changed once a second; checked only if a test wants it.
        self.limits_changes, self.changed, self.refused_changes = False, {}, 0
        self.lock, self.numbers = threading.RLock(), itertools.count(1_700_000_000_000_000)

    def put(self, key, body, condition=None):
        """Writes an object if its generation is the one in `condition`: 0 means that it does not exist."""
        with self.lock:
            self.limit(key)
            found = self.objects.get(key)
            if condition is not None and int(condition) != (found.generation if found else 0):
                raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
            self.objects[key] = Held(body, next(self.numbers))
            self.changed[key] = time.monotonic()
            return self.objects[key]

    def limit(self, key):
        """Refuses to change an object that was changed less than a second ago."""
        with self.lock:
            if self.limits_changes and time.monotonic() - self.changed.get(key, -1) < 1:
                self.refused_changes += 1
                raise Refused(429, "SlowDown", "The object exceeded the rate limit for object mutation operations "
                                               "(create, update, and delete). Please reduce your request rate.")

    def get(self, key):
        with self.lock:
            if key not in self.objects:
                raise Refused(404, "NoSuchKey", "The specified key does not exist.")
            return self.objects[key]

    def upload(self, upload_id):
        with self.lock:
            if upload_id not in self.uploads:
                raise Refused(404, "NoSuchUpload", "The requested upload was not found.")
            return self.uploads[upload_id]


class Handler(BaseHTTPRequestHandler):
    """Answers requests of the XML API."""

    protocol_version = "HTTP/1.1"

    def handle_request(self):
        store = self.server.store
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path.lstrip("/")).partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if bucket != store.bucket:
                raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
            for name in self.headers:
                if name.lower().startswith(("if-", "x-goog-copy")):
                    raise Refused(501, "NotImplemented", f"the stand-in does not know the header {name}")
            kind = (self.command, bool(key), *sorted(set(query) & {"uploads", "uploadId", "partNumber", "list-type"}))
            handle = {
                ("GET", False, "list-type"): self.list, ("GET", True): self.get, ("HEAD", True): self.get,
                ("PUT", True): self.put, ("DELETE", True): self.delete, ("POST", True, "uploads"): self.begin,
                ("PUT", True, "partNumber", "uploadId"): self.part, ("POST", True, "uploadId"): self.complete,
                ("DELETE", True, "uploadId"): self.abort,
            }.get(kind)
            if handle is None:
                raise Refused(501, "NotImplemented", f"the stand-in does not know {self.command} {self.path}")
            handle(store, key, query, body)
        except Refused as refused:
            status, code, message = refused.args
            if status == 501:
                store.unknown.append(message)
            self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def answer(self, status, body=b"", **headers):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def list(self, store, key, query, _):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        after = query.get("continuation-token") or query.get("start-after") or ""
        with store.lock:
            keys = sorted(key for key in store.objects if key.startswith(prefix) and key > after)
            found, folders, last = [], [], None
            for key in keys:
                if len(found) + len(folders) == PAGE_ENTRIES:
                    break
                inside, cut, _ = key[len(prefix):].partition(delimiter) if delimiter else (key, "", "")
                if cut and prefix + inside + cut not in folders:
                    folders.append(prefix + inside + cut)
                elif not cut:
                    found.append((key, store.objects[key]))
                last = key
            more = bool(keys) and last != keys[-1]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(held.body)}</Size><ETag>{escape(held.etag)}</ETag>"
            f"<Generation>{held.generation}</Generation>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(held.at))}.000Z</LastModified></Contents>"
            for key, held in found
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        self.answer(200, f"<?xml version='1.0'?><ListBucketResult>{contents}{common}{token}"
                         f"<IsTruncated>{str(more).lower()}</IsTruncated></ListBucketResult>")

    def get(self, store, key, query, _):
        held = store.get(key)
        status, body, extra = 200, held.body, {}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = asked.groups()
            start = int(first) if first else max(0, len(body) - int(last))
            end = min(int(last) + 1, len(body)) if first and last else len(body)
            if start >= len(body):
                raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
            status, extra = 206, {"Content_Range": f"bytes {start}-{end - 1}/{len(body)}"}
            body = body[start:end]
        self.answer(status, body, ETag=held.etag, x_goog_generation=held.generation,
                    Last_Modified=formatdate(held.at, usegmt=True), Content_Type="application/octet-stream", **extra)

    def put(self, store, key, query, body):
        held = store.put(key, body, self.headers.get("x-goog-if-generation-match"))
        self.answer(200, ETag=held.etag, x_goog_generation=held.generation)

    def delete(self, store, key, query, _):
        with store.lock:
            store.limit(key)
            store.get(key)
            del store.objects[key]
            store.changed[key] = time.monotonic()
        self.answer(204)

    def begin(self, store, key, query, _):
        upload_id = f"upload-{next(store.numbers)}"
        with store.lock:
            store.uploads[upload_id] = (key, {})
        self.answer(200, f"<InitiateMultipartUploadResult><Bucket>{store.bucket}</Bucket><Key>{escape(key)}</Key>"
                         f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>")

    def part(self, store, key, query, body):
        with store.lock:
            store.upload(query["uploadId"])[1][int(query["partNumber"])] = body
        self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def complete(self, store, key, query, body):
        named = [(part.findtext("{*}PartNumber"), part.findtext("{*}ETag"))
                 for part in ElementTree.fromstring(body).iterfind("{*}Part")]
        if not named:
            raise Refused(400, "MalformedCompleteMultipartUploadRequest", "No parts were specified.")
        with store.lock:
            own_key, parts = store.upload(query["uploadId"])
            for number, etag in named:
                part = parts.get(int(number))
                if part is None or hashlib.md5(part).hexdigest() not in etag:
                    raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
            assert own_key == key
            held = store.put(key, b"".join(parts[int(number)] for number, _ in named))
            del store.uploads[query["uploadId"]]
        self.answer(200, f"<CompleteMultipartUploadResult><ETag>{escape(held.etag)}</ETag>"
                         "</CompleteMultipartUploadResult>", x_goog_generation=held.generation)

    def abort(self, store, key, query, _):
        with store.lock:
            store.upload(query["uploadId"])
            del store.uploads[query["uploadId"]]
        self.answer(204)

    def log_message(self, *_):
        pass


def serve(store):
    """Serves a store on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.store = True, store
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server
