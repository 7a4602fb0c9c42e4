"""Whether the servers and the proxy do what the conformance tests take for granted, asked without the program."""

import threading
from contextlib import contextmanager

import duckdb
import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock
from botocore.exceptions import ClientError
from gcs import MATCH
from proxy import DROP, Proxy
from servers import Azurite, Gcs, Moto, SeaweedFs, duckdb_secret

MIB = 1 << 20


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts servers, each once; they end with the module."""
    started = {}

    def start(kind, **options):
        name = f"{kind.__name__}{options or ''}"
        if name not in started:
            started[name] = kind(tmp_path_factory.mktemp(kind.__name__), **options).start()
        return started[name]

    yield start
    for server in started.values():
        server.stop()


@pytest.fixture(params=[SeaweedFs, Moto, Azurite, Gcs], ids=lambda kind: kind.__name__)
def server(request, start):
    return start(request.param)


@contextmanager
def refused(*statuses):
    with pytest.raises((ClientError, HttpResponseError, requests.HTTPError)) as told:
        yield
    assert status_of(told.value) in statuses


def status_of(error):
    if isinstance(error, ClientError):
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    return error.status_code if isinstance(error, HttpResponseError) else error.response.status_code


def version(server, key):
    """What a conditional write has to name of the object it replaces."""
    if isinstance(server, Gcs):
        return server.request("HEAD", key).headers["x-goog-generation"]
    if isinstance(server, Azurite):
        return server.container.get_blob_client(key).get_blob_properties().etag
    return server.s3.head_object(Bucket=server.bucket, Key=key)["ETag"]


def write(server, key, data, match=None):
    """Creates an object, or replaces the version that is named."""
    if isinstance(server, Gcs):
        server.request("PUT", key, data=data, headers={MATCH: match or "0"})
    elif isinstance(server, Azurite):
        condition = {"etag": match, "match_condition": MatchConditions.IfNotModified} if match else {}
        server.container.upload_blob(key, data, overwrite=match is not None, **condition)
    else:
        condition = {"IfMatch": match} if match else {"IfNoneMatch": "*"}
        server.s3.put_object(Bucket=server.bucket, Key=key, Body=data, **condition)


def read(server, key, text, match=None):
    """A range of an object, as it stands in the header, asked for without signing where the server allows that."""
    if isinstance(server, Gcs):
        return server.request("GET", key, headers={"Range": text, **({"If-Match": match} if match else {})}).content
    if isinstance(server, Azurite):
        first, last = map(int, text[len("bytes=") :].split("-"))
        condition = {"etag": match, "match_condition": MatchConditions.IfNotModified} if match else {}
        return server.container.download_blob(key, first, last - first + 1, **condition).readall()
    condition = {"IfMatch": match} if match else {}
    return server.s3.get_object(Bucket=server.bucket, Key=key, Range=text, **condition)["Body"].read()


def race(server, key, match):
    """How eight writers at once fare: the statuses, and the data of those that were told they won."""
    ready, told, won = threading.Barrier(8), [], []

    def one(number):
        data = bytes([number]) * 100_000
        ready.wait(timeout=20)
        try:
            write(server, key, data, match)
            won.append(data)
        except (ClientError, HttpResponseError, requests.HTTPError) as error:
            told.append(status_of(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return told, won


def test_one_writer_wins_a_name_and_one_its_replacement(server):
    for number in range(15):
        key = f"race/{number}"
        for match in (None, "what is there"):
            told, won = race(server, key, match and version(server, key))
            assert len(won) == 1 and len(told) == 7 and set(told) <= {409, 412}
            assert server.get(key) == won[0]


def test_conditions_and_versions_are_those_of_the_object(server):
    with refused(404, 412):
        write(server, "conditions/one", b"1", match='"0123456789abcdef"' if not isinstance(server, Gcs) else "17")
    write(server, "conditions/one", b"1")
    first = version(server, "conditions/one")
    with refused(409, 412):
        write(server, "conditions/one", b"2")
    write(server, "conditions/one", b"3", match=first)
    with refused(412):
        write(server, "conditions/one", b"4", match=first)
    assert server.get("conditions/one") == b"3"
    server.delete("conditions/one")
    write(server, "conditions/one", b"5")


def test_ranges_and_reads_of_one_version(server):
    server.put("ranges/one", b"0123456789")
    assert read(server, "ranges/one", "bytes=2-4") == b"234"
    assert read(server, "ranges/one", "bytes=8-20") == b"89"
    if not isinstance(server, Azurite):
        assert read(server, "ranges/one", "bytes=-3") == b"789"
    with refused(416):
        read(server, "ranges/one", "bytes=10-12")
    with refused(412):
        read(server, "ranges/one", "bytes=0-1", match='"0123456789abcdef"')
    with refused(404):
        server.get("ranges/none")


def pages(server, prefix, delimiter, after=""):
    """A list in pages of five: the objects' keys and the common prefixes."""
    if isinstance(server, Gcs):
        return list(server.pages(prefix, delimiter, after))
    if isinstance(server, Azurite):
        listed = server.container.walk_blobs(prefix, delimiter=delimiter, results_per_page=5)
        return [[item.name for item in page] for page in listed.by_page()]
    options = {"Delimiter": delimiter, "StartAfter": after, "PaginationConfig": {"PageSize": 5}}
    listed = server.s3.get_paginator("list_objects_v2").paginate(Bucket=server.bucket, Prefix=prefix, **options)
    return [
        sorted(entry[name] for kind, name in (("Contents", "Key"), ("CommonPrefixes", "Prefix"))
               for entry in page.get(kind, []))
        for page in listed
    ]


def test_lists_come_in_pages_in_order_and_whole(server):
    odd = "list/z=1/a b+c%25&<é>'.x"
    keys = [*(f"list/{number:02}/{name}" for number in range(12) for name in "ab"), "list/10.x", "list/10a", odd]
    for key in [*keys, "list", "list.x", "lists/a"]:
        server.put(key, key.encode())
    assert server.objects("list") == {key: key.encode() for key in keys}
    folders = [*(f"list/{number:02}/" for number in range(12)), "list/10.x", "list/10a", "list/z=1/"]
    listed = pages(server, "list/", "/")
    assert all(len(page) <= 5 for page in listed) and len(listed) > 2
    assert sorted(name for page in listed for name in page) == sorted(folders)
    if not isinstance(server, Azurite):
        assert sum(pages(server, "list/", "", after="list/10.x"), []) == [key for key in sorted(keys) if key > "list/10.x"]
    for key in keys:
        server.delete(key)
    assert server.objects("list") == {} == server.objects("none")


class Multipart:
    """One multipart upload on any server."""

    def __init__(self, server, key):
        self.server, self.key, self.parts = server, key, []
        if isinstance(server, Gcs):
            answer = server.request("POST", key, params={"uploads": ""}).text
            self.id = answer.partition("<UploadId>")[2].partition("</UploadId>")[0]
        elif isinstance(server, Azurite):
            self.blob = server.container.get_blob_client(key)
        else:
            self.id = {"Bucket": server.bucket, "Key": key}
            self.id["UploadId"] = server.s3.create_multipart_upload(**self.id)["UploadId"]

    def part(self, data):
        number = len(self.parts) + 1
        if isinstance(self.server, Gcs):
            where = {"uploadId": self.id, "partNumber": number}
            self.parts.append(self.server.request("PUT", self.key, params=where, data=data).headers["ETag"])
        elif isinstance(self.server, Azurite):
            self.blob.stage_block(f"{number:08}", data)
            self.parts.append(BlobBlock(f"{number:08}"))
        else:
            etag = self.server.s3.upload_part(**self.id, PartNumber=number, Body=data)["ETag"]
            self.parts.append({"PartNumber": number, "ETag": etag})

    def complete(self):
        if isinstance(self.server, Gcs):
            parts = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
                for number, etag in enumerate(self.parts, 1)
            )
            body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
            self.server.request("POST", self.key, params={"uploadId": self.id}, data=body)
        elif isinstance(self.server, Azurite):
            self.blob.commit_block_list(self.parts)
        else:
            self.server.s3.complete_multipart_upload(**self.id, MultipartUpload={"Parts": self.parts})

    def abort(self):
        """Azure cannot."""
        if isinstance(self.server, Gcs):
            self.server.request("DELETE", self.key, params={"uploadId": self.id})
        else:
            self.server.s3.abort_multipart_upload(**self.id)


def test_a_multipart_upload_shows_when_it_is_complete_and_leaves_nothing_when_it_is_aborted(server):
    data = [bytes([1]) * (5 * MIB), bytes([2]) * 1000]
    server.put("parts/one", b"old")
    upload = Multipart(server, "parts/one")
    for part in data:
        upload.part(part)
    assert server.get("parts/one") == b"old" and server.uploads() == ["parts/one"]
    upload.complete()
    assert server.objects("parts") == {"parts/one": b"".join(data)} and server.uploads() == []
    if isinstance(server, Azurite):
        return
    with refused(404):  # moto and SeaweedFS might have been lenient: what is complete is no upload any more
        upload.part(b"late")
    upload = Multipart(server, "parts/two")
    upload.part(data[0])
    assert server.uploads() == ["parts/two"]
    upload.abort()
    with refused(404):
        upload.complete()
    assert server.uploads() == [] and list(server.objects("parts")) == ["parts/one"]


def test_azurite_forgets_staged_blocks_when_the_blob_is_put_as_azure_does(start):
    server = start(Azurite)
    upload = Multipart(server, "staged/one")
    upload.part(b"staged")
    assert server.uploads() == ["staged/one"] and server.objects("staged") == {}
    server.put("staged/one", b"put")
    with refused(400):
        upload.complete()
    assert server.uploads() == [] and server.get("staged/one") == b"put"


@pytest.mark.parametrize("kind", [SeaweedFs, Gcs])
def test_a_killed_server_comes_back_with_its_data_on_its_port(kind, start):
    server = start(kind)
    environment = server.environment
    data = {"kill/small": b"1", "kill/large": bytes(range(256)) * 40_000}
    for key, value in data.items():
        server.put(key, value)
    upload = Multipart(server, "kill/parts")
    upload.part(data["kill/large"])
    server.kill()
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=5)
    server.start()
    assert server.environment == environment and server.objects("kill") == data
    assert server.uploads() == ["kill/parts"]
    upload.complete()
    assert server.get("kill/parts") == data["kill/large"]


def test_the_stand_in_for_gcs_refuses_what_gcs_refuses_and_remembers_what_it_does_not_know(start):
    server = start(Gcs)
    server.put("strict/one", b"1")
    upload = Multipart(server, "strict/two")
    upload.part(b"too small")
    upload.part(b"to be followed")
    with refused(400):
        upload.complete()
    upload.abort()
    for key, words in ("strict/none", "<Code>NoSuchKey</Code>"), ("strict/one", "<Code>PreconditionFailed</Code>"):
        answer = requests.get(f"{server.url}/{server.bucket}/{key}", headers={"If-Match": '"other"'}, timeout=5)
        assert words in answer.text
    assert "<Code>NoSuchBucket</Code>" in requests.get(f"{server.url}/none/one", timeout=5).text
    with refused(404):
        server.delete("strict/none")
    assert server.unknown == []
    for options in {"params": {"acl": ""}}, {"headers": {"x-goog-if-metageneration-match": "1"}}:
        with refused(501):
            server.request("GET", "strict/one", **options)
    assert len(server.unknown) == 2
    server.unknown.clear()


def test_moto_allows_what_the_policy_says(start):
    server = start(Moto, iam=True)
    own, bucket = f"arn:aws:s3:::{server.bucket}/own/*", f"arn:aws:s3:::{server.bucket}"
    server.put("own/one", b"1")
    server.put("other/one", b"1")

    def tried(*statements):
        """What a user with these statements may do, by the name of boto3's method."""
        statements = [{"Effect": "Allow", **statement} for statement in statements]
        environment = server.with_policy({"Version": "2012-10-17", "Statement": statements})
        client = server.client(key_id=environment["AWS_ACCESS_KEY_ID"], secret=environment["AWS_SECRET_ACCESS_KEY"])
        allowed = set()
        for name, options in {
            "get_object": {"Key": "own/one"}, "put_object": {"Key": "own/one", "Body": b"1"},
            "list_objects_v2": {"Prefix": "own/"}, "delete_object": {"Key": "own/none"},
            "delete_objects": {"Delete": {"Objects": [{"Key": "own/none"}]}},
            "create_multipart_upload": {"Key": "own/parts"},
        }.items():
            try:
                if not getattr(client, name)(Bucket=server.bucket, **options).get("Errors"):
                    allowed.add(name)
            except ClientError as error:
                assert status_of(error) == 403
        for key in "other/one", "own/none":
            with refused(403):
                client.get_object(Bucket=server.bucket, Key=key)
        return allowed

    assert tried({"Action": "s3:GetObject", "Resource": own}) == {"get_object"}
    assert tried({"Action": "s3:PutObject", "Resource": own}) == {"put_object", "create_multipart_upload"}
    assert tried({"Action": "s3:DeleteObject", "Resource": own}) == {"delete_object", "delete_objects"}
    assert tried({"Action": "s3:ListBucket", "Resource": bucket}) == {"list_objects_v2"}
    assert tried({"Action": "s3:*", "Resource": f"{bucket}/else/*"}) == set()
    for prefix, allowed in ("own/*", {"list_objects_v2"}), ("other/*", set()):
        condition = {"StringLike": {"s3:prefix": [prefix]}}
        assert tried({"Action": "s3:ListBucket", "Resource": bucket, "Condition": condition}) == allowed


def test_the_proxy_hands_on_counts_and_refuses(server):
    with Proxy(server) as proxy:
        proxied = through(server, proxy)
        large = bytes(range(256)) * 40_000
        proxied.put("proxy/one", large)
        assert proxied.objects("proxy") == {"proxy/one": large}
        counts = proxy.counts
        assert (counts["put"] + counts["multipart_part"] > 0) and counts["get"] > 0 and counts["list"] > 0
        proxy.reset()
        write(proxied, "proxy/two", b"2")
        with refused(409, 412):
            write(proxied, "proxy/two", b"3")
        proxy.refuse_conditions = True
        with refused(501):
            write(proxied, "proxy/three", b"3")
        proxied.put("proxy/three", b"3")
        proxied.delete("proxy/three")
        assert proxy.counts == {"put": 4, "delete": 1}
        assert [request.status for request in proxy.requests][2:3] == [501]
        proxy.slow_down(every=3, kinds={"get"})
        assert proxied.get("proxy/two") == proxied.get("proxy/two") == b"2"
        with refused(503):
            proxied.get("proxy/two")


def test_the_proxy_plays_a_store_without_conditions_and_answers_that_are_lost(start):
    for kind, strips in {Moto: True, Gcs: True, SeaweedFs: False, Azurite: False}.items():
        server = start(kind)
        with Proxy(server) as proxy:
            proxied = through(server, proxy)
            server.put("ignored/one", b"1")
            proxy.ignore_conditions = True
            if strips:
                write(proxied, "ignored/one", b"2")
            else:
                with refused(403):  # the signature covers the condition
                    write(proxied, "ignored/one", b"2")
            assert server.get("ignored/one") == (b"2" if strips else b"1")
            proxy.ignore_conditions = False
            proxy.after = lambda request: DROP if request.kind == "put" else None
            with pytest.raises(Exception, match="(?i)connection"):
                write(proxied, "lost/one", b"3")
            assert server.get("lost/one") == b"3" and proxy.requests[-1].status is None


def through(server, proxy):
    """The server's client, by way of the proxy."""
    import copy

    proxied = copy.copy(server)
    if isinstance(server, Gcs):
        proxied.ports = [int(proxy.url.rpartition(":")[2])]
    elif isinstance(server, Azurite):
        proxied.container = server.client(url=proxy.url)
    else:
        proxied.s3 = server.client(url=proxy.url)
    return proxied


@pytest.mark.parametrize("kind", [SeaweedFs, Moto, Azurite])
def test_duckdb_reads_a_glob(kind, start, tmp_path):
    server = start(kind)
    for date in "2024-01-01", "2024-01-02":
        duckdb.sql("SELECT range AS one FROM range(10)").write_parquet(str(tmp_path / "file"))
        server.put(f"read/table/created_date={date}/part-0.parquet", (tmp_path / "file").read_bytes())
    with duckdb.connect() as connection:
        for statement in duckdb_secret(server):
            connection.execute(statement)
        glob = f"{server.lake('read')}/table/*/*.parquet"
        rows = connection.execute(
            "SELECT CAST(created_date AS VARCHAR), sum(one) FROM read_parquet($1, hive_partitioning = true) GROUP BY ALL "
            "ORDER BY ALL", [glob],
        ).fetchall()
    assert rows == [("2024-01-01", 45), ("2024-01-02", 45)]
