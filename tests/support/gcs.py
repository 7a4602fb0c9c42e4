"""A small, strict stand-in for the XML API of Google Cloud Storage, as the crate `object_store` speaks it.

It was written from that crate's requests and from the API's documentation. What it can prove: that the program sends
well-formed requests, that it holds on to its promises on a store with GCS's rules (generations as preconditions, 412
and 404 as GCS words them, paged lists, parts of at least 5 MiB), and that it asks for nothing else. What it cannot
prove: that GCS itself answers so. It checks no credentials, knows no object versions, retention, permissions, quotas
(GCS lets one name be written about once a second and answers 429 beyond) or redirects, and its lists are never stale.

Whatever it does not know, a parameter or a header included, it answers with 501 and remembers in `unknown`: a test
that ends with `unknown == []` has used nothing of which this file does not say what GCS does.
"""

import base64
import contextlib
import hashlib
import re
import socket
import struct
import sys
import threading
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections import namedtuple
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

SMALLEST_PART = 5 << 20  # of all parts but the last
MATCH = "x-goog-if-generation-match"
KEPT = ("content-type", "content-encoding", "content-language", "content-disposition", "cache-control")

# What each kind of request may have: parameters, and headers that would change what it means.
KNOWN = {
    "list": ({"list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys"}, set()),
    "get": ({"generation"}, {"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}),
    "put": (set(), {MATCH}),
    "copy": (set(), {MATCH, "x-goog-copy-source"}),
    "delete": (set(), set()),
    "create": ({"uploads"}, set()),
    "part": ({"partNumber", "uploadId"}, set()),
    "complete": ({"uploadId"}, set()),
    "abort": ({"uploadId"}, set()),
}
MEANT = re.compile(r"x-goog-|x-amz-|if-|range$|content-md5$|content-range$|transfer-encoding$")

ERRORS = {
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidPart": (400, "One or more of the specified parts could not be found."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum object size specified."),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our schema."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (404, "The requested upload was not found."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold."),
    "InvalidRange": (416, "The requested range cannot be satisfied."),
    "NotImplemented": (501, "This stand-in does not know what was asked."),
}

Object = namedtuple("Object", "data generation etag modified headers")
Upload = namedtuple("Upload", "bucket key headers parts")


class Refused(Exception):
    """An error of the API, with headers."""

    def __init__(self, code, **headers):
        super().__init__(code)
        self.code, self.headers = code, headers


class Killed(Exception):
    """The server is gone before the request has had an effect, or the request never came in whole."""


class Gcs:
    """The store. It outlives its server: killed and started again it has what it had."""

    def __init__(self, buckets=("lake",), page_size=5):
        self.buckets = {bucket: {} for bucket in buckets}
        self.page_size = page_size  # GCS: 1000
        self.uploads = {}
        self.unknown = []
        self.lock = threading.Lock()
        self.generation = 0
        self.server = None

    def start(self, port=0):
        """Serves, and returns the port."""
        self.server = Server(("127.0.0.1", port), self)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self.server.server_address[1]

    def kill(self):
        """Ends as a killed process does: no answer is finished, nothing that comes later has an effect."""
        server, self.server = self.server, None
        if server is None:
            return
        with self.lock:
            server.alive = False
        server.shutdown()
        server.server_close()
        server.reset_connections()

    # What follows is called with the lock held.

    def next_generation(self):
        self.generation = max(self.generation + 1, time.time_ns() // 1000)
        return self.generation

    def bucket(self, name):
        if name not in self.buckets:
            raise Refused("NoSuchBucket")
        return self.buckets[name]

    def object(self, bucket, key, generation=None):
        found = self.bucket(bucket).get(key)
        if found is None or generation not in (None, str(found.generation)):
            raise Refused("NoSuchKey")
        return found

    def write(self, bucket, key, data, headers, match=None, etag=None):
        """Replaces an object if its generation is the given one; 0 is that of an object that does not exist."""
        objects = self.bucket(bucket)
        if match is not None:
            if not match.isdecimal():
                raise Refused("InvalidArgument")
            if int(match) != (objects[key].generation if key in objects else 0):
                raise Refused("PreconditionFailed")
        etag = etag or f'"{hashlib.md5(data).hexdigest()}"'
        objects[key] = Object(data, self.next_generation(), etag, time.time(), headers)
        return objects[key]

    def upload(self, upload_id, bucket, key):
        upload = self.uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise Refused("NoSuchUpload")
        return upload

    def page(self, bucket, prefix, delimiter, after, token, size):
        """Objects and common prefixes of one page, in order, and the token of the next."""
        last, found = None, []
        token = base64.urlsafe_b64decode(token).decode() if token else ""
        for key in sorted(self.bucket(bucket), key=str.encode):
            if not key.startswith(prefix) or key <= after:
                continue
            name = key
            if delimiter and delimiter in key[len(prefix):]:
                name = key[: key.index(delimiter, len(prefix)) + len(delimiter)]
            if name == last or name.encode() <= token.encode():
                continue
            if len(found) == size:
                return found, base64.urlsafe_b64encode(last.encode()).decode()
            last = name
            found.append((name, self.buckets[bucket][key] if name == key else None))
        return found, None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, store):
        self.store, self.alive, self.connections = store, True, set()
        super().__init__(address, Handler)

    def reset_connections(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """A client that went away is no matter; whatever else goes wrong here is a fault of this file, and shows."""
        if self.alive and not isinstance(sys.exc_info()[1], (ConnectionError, Killed)):
            self.store.unknown.append(repr(sys.exc_info()[1]))
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        with contextlib.suppress(ConnectionError):
            super().finish()

    def log_message(self, *_):
        pass

    def handle_request(self):
        store = self.server.store
        path, _, query = self.path.partition("?")
        bucket, _, key = path[1:].partition("/")
        self.bucket, self.key = unquote(bucket), unquote(key)
        pairs = parse_qsl(query, keep_blank_values=True)
        self.query = dict(pairs)
        try:
            if self.command in ("PUT", "POST") and "Content-Length" not in self.headers:
                raise Refused("MissingContentLength")
            length = int(self.headers.get("Content-Length", 0))
            self.body = self.rfile.read(length)
            if len(self.body) < length:
                raise Killed
            kind = self.kind()
            parameters, headers = KNOWN.get(kind, ((), ()))
            if (
                kind is None
                or len(pairs) != len(self.query)
                or self.query.keys() - parameters
                or any(MEANT.match(name) and name not in headers for name in self.meant())
            ):
                raise Refused("NotImplemented")
            with store.lock:
                if not self.server.alive:
                    raise Killed
                status, headers, body = getattr(self, kind)(store)
        except Refused as refused:
            status, headers, body = self.error(refused)
        self.answer(status, headers, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = handle_request

    def meant(self):
        """The names of the headers, without those that are only kept with an object."""
        own = ("x-goog-meta-", "x-goog-storage-class")
        return [name for name in map(str.lower, self.headers) if not name.startswith(own)]

    def kind(self):
        method, query = self.command, self.query
        if not self.key:
            return "list" if method == "GET" and query.get("list-type") == "2" else None
        if method in ("GET", "HEAD"):
            return "get"
        if method == "PUT":
            return "part" if "uploadId" in query else "copy" if "x-goog-copy-source" in self.headers else "put"
        if method == "POST":
            return "create" if "uploads" in query else "complete" if "uploadId" in query else None
        if method == "DELETE":
            return "abort" if "uploadId" in query else "delete"
        return None

    def kept(self):
        """The headers that an object keeps."""
        return {
            name: value for name, value in self.headers.items() if name.lower().startswith((*KEPT, "x-goog-meta-"))
        }

    def answer(self, status, headers, body=b""):
        if not self.server.alive:
            raise Killed
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-GUploader-UploadID": uuid.uuid4().hex, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(body)

    def error(self, refused):
        code = refused.code
        status, message = ERRORS[code]
        if code == "NotImplemented":
            self.server.store.unknown.append(f"{self.command} {self.path} {sorted(self.meant())}")
        if code == "MissingContentLength":
            self.close_connection = True  # where the next request begins cannot be told
        details = {"NoSuchKey": f"<Details>No such object: {escape(self.bucket)}/{escape(self.key)}</Details>"}
        return status, {"Content-Type": "application/xml; charset=UTF-8", **refused.headers}, xml(
            f"<Error><Code>{code}</Code><Message>{message}</Message>{details.get(code, '')}</Error>"
        )

    # One for each kind of request.

    def list(self, store):
        query = self.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        token, after = query.get("continuation-token", ""), query.get("start-after", "")
        size = min(int(query.get("max-keys", store.page_size)), store.page_size)
        found, following = store.page(self.bucket, prefix, delimiter, after, token, size)
        parts = [
            f"<Name>{escape(self.bucket)}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<MaxKeys>{size}</MaxKeys><IsTruncated>{'true' if following else 'false'}</IsTruncated>"
        ]
        for name, value in ("Delimiter", delimiter), ("StartAfter", after), ("ContinuationToken", token), (
            "NextContinuationToken", following,
        ):
            parts += [f"<{name}>{escape(value)}</{name}>"] if value else []
        for name, found_object in found:
            if found_object is None:
                parts.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
                continue
            data, generation, etag, modified, _ = found_object
            parts.append(
                f"<Contents><Key>{escape(name)}</Key><Generation>{generation}</Generation>"
                f"<MetaGeneration>1</MetaGeneration><LastModified>{instant(modified)}</LastModified>"
                f"<ETag>{escape(etag)}</ETag><Size>{len(data)}</Size></Contents>"
            )
        body = f"<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>{''.join(parts)}</ListBucketResult>"
        return 200, {"Content-Type": "application/xml; charset=UTF-8"}, xml(body)

    def get(self, store):
        found = store.object(self.bucket, self.key, self.query.get("generation"))
        headers = {
            **found.headers,
            **written(found),
            "Last-Modified": formatdate(found.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "x-goog-stored-content-length": len(found.data),
        }
        asked = self.headers

        def matches(name):
            return asked[name].strip() == "*" or found.etag in [tag.strip() for tag in asked[name].split(",")]

        def changed_since(name):
            return int(found.modified) > parsedate_to_datetime(asked[name]).timestamp()

        if "If-Match" in asked:
            if not matches("If-Match"):
                raise Refused("PreconditionFailed")
        elif "If-Unmodified-Since" in asked and changed_since("If-Unmodified-Since"):
            raise Refused("PreconditionFailed")
        if "If-None-Match" in asked:
            if matches("If-None-Match"):
                return 304, headers, b""
        elif "If-Modified-Since" in asked and not changed_since("If-Modified-Since"):
            return 304, headers, b""
        if "Range" not in asked:
            return 200, headers, found.data
        size = len(found.data)
        first, last = span(asked["Range"], size)
        if first >= size or last < first:
            raise Refused("InvalidRange", **{"Content-Range": f"bytes */{size}"})
        return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}, found.data[first : last + 1]

    def put(self, store):
        new = store.write(self.bucket, self.key, self.body, self.kept(), self.headers.get(MATCH))
        return 200, written(new), b""

    def copy(self, store):
        source_bucket, _, source_key = self.headers["x-goog-copy-source"].lstrip("/").partition("/")
        source = store.object(unquote(source_bucket), unquote(source_key))
        new = store.write(self.bucket, self.key, source.data, source.headers, self.headers.get(MATCH), source.etag)
        body = f"<LastModified>{instant(new.modified)}</LastModified><ETag>{escape(new.etag)}</ETag>"
        return 200, written(new), xml(f"<CopyObjectResult>{body}</CopyObjectResult>")

    def delete(self, store):
        store.object(self.bucket, self.key)
        del store.buckets[self.bucket][self.key]
        return 204, {}, b""

    def create(self, store):
        store.bucket(self.bucket)
        upload_id = uuid.uuid4().hex
        store.uploads[upload_id] = Upload(self.bucket, self.key, self.kept(), {})
        body = f"<Bucket>{escape(self.bucket)}</Bucket><Key>{escape(self.key)}</Key><UploadId>{upload_id}</UploadId>"
        return 200, {"Content-Type": "application/xml"}, xml(
            f"<InitiateMultipartUploadResult>{body}</InitiateMultipartUploadResult>"
        )

    def part(self, store):
        parts = store.upload(self.query["uploadId"], self.bucket, self.key).parts
        number = self.query.get("partNumber", "")
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise Refused("InvalidArgument")
        etag = f'"{hashlib.md5(self.body).hexdigest()}"'
        parts[int(number)] = (etag, self.body)
        return 200, {"ETag": etag}, b""

    def complete(self, store):
        upload = store.upload(self.query["uploadId"], self.bucket, self.key)
        try:
            root = ElementTree.fromstring(self.body)
            named = [(int(part.findtext("{*}PartNumber")), part.findtext("{*}ETag")) for part in root.iter("{*}Part")]
        except (ElementTree.ParseError, TypeError, ValueError):
            raise Refused("MalformedXML") from None
        if not named:
            raise Refused("MalformedXML")
        numbers = [number for number, _ in named]
        if numbers != sorted(set(numbers)):
            raise Refused("InvalidPartOrder")
        if any(upload.parts.get(number, (None,))[0] != etag for number, etag in named):
            raise Refused("InvalidPart")
        data = [upload.parts[number][1] for number in numbers]
        if any(len(part) < SMALLEST_PART for part in data[:-1]):
            raise Refused("EntityTooSmall")
        # Not the MD5 of the whole, as GCS has none either.
        etag = f'"{hashlib.md5("".join(etag for _, etag in named).encode()).hexdigest()}-{len(named)}"'
        new = store.write(self.bucket, self.key, b"".join(data), upload.headers, etag=etag)
        del store.uploads[self.query["uploadId"]]
        body = f"<Bucket>{escape(self.bucket)}</Bucket><Key>{escape(self.key)}</Key><ETag>{escape(etag)}</ETag>"
        return 200, {**written(new), "Content-Type": "application/xml"}, xml(
            f"<CompleteMultipartUploadResult>{body}</CompleteMultipartUploadResult>"
        )

    def abort(self, store):
        store.upload(self.query["uploadId"], self.bucket, self.key)
        del store.uploads[self.query["uploadId"]]
        return 204, {}, b""


def written(found):
    return {"ETag": found.etag, "x-goog-generation": found.generation, "x-goog-metageneration": 1}


def instant(seconds):
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def xml(body):
    return f"<?xml version='1.0' encoding='UTF-8'?>{body}".encode()


def span(text, size):
    """The first and last byte of a range."""
    parsed = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if parsed is None or parsed[1] == parsed[2] == "":
        raise Refused("NotImplemented")
    if parsed[1] == "":
        return max(0, size - int(parsed[2])), size - 1 if int(parsed[2]) else -1
    return int(parsed[1]), min(int(parsed[2]), size - 1) if parsed[2] else size - 1
