"""Runs moto, a server that imitates S3, as a separate process. moto keeps objects in memory, and
doesn't check access keys."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from settings.environment import BASE_DIR
from tests.support.cluster import free_ports, wait_until
from tests.support.servers.reaper import mark

BUCKET = "realms"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
REGION = "eu-central-1"


class S3:
    """The S3 server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def make_bucket(self) -> bool:
        """Creates the bucket. Returns False if the server doesn't answer yet."""
        try:
            where = {"LocationConstraint": REGION}
            self._client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
        except (BotoCoreError, ClientError):
            return False
        return True

    def objects(self) -> dict[str, int]:
        """Returns the size of each object in the bucket, by the object's key."""
        found = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: each["Size"] for each in found}


@contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """Runs an S3 server with an empty bucket."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(folder / "s3.log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=BASE_DIR, env={"PATH": "", **mark()}, stdout=log, stderr=log
        )
    try:
        running = S3(port)
        wait_until(running.make_bucket, "the S3 server answers", 60)
        yield running
    finally:
        server.kill()
        server.wait()
