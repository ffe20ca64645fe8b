"""Real S3 servers for contract tests: rclone over a folder, and Ceph (tests/ceph.py); both with one bucket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from appliance.config import StorageConfig
from demo.room import free_port, port_answers, wait_until
from tests.ceph import ACCESS_KEY_ID, SECRET_ACCESS_KEY, start_ceph

REGION, BUCKET = "eu-test-1", "exams"


@dataclass(frozen=True)
class S3Server:
    """One running server and a folder of the test's own."""

    kind: str
    endpoint: str
    folder: Path

    def config(self, secret: str = SECRET_ACCESS_KEY) -> StorageConfig:
        """As the controller's settings name it."""
        credentials = self.folder / f"{secret}.toml"
        credentials.write_text(f'access_key_id = "{ACCESS_KEY_ID}"\nsecret_access_key = "{secret}"\n')
        return StorageConfig(endpoint=self.endpoint, region=REGION, bucket=BUCKET, credentials=credentials)

    def client(self) -> Any:
        """A boto3 client with the whole bucket's rights, to look at it from outside the product."""
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=REGION, aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )  # fmt: skip

    def stored_keys(self) -> set[str]:
        """Every object's key."""
        return {entry["Key"] for entry in self.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])}


@contextmanager
def running_storage(kind: str, folder: Path) -> Iterator[S3Server]:
    """`kind` is rclone or ceph."""
    with (_rclone if kind == "rclone" else _ceph)(folder) as server:
        yield server


@contextmanager
def _rclone(folder: Path) -> Iterator[S3Server]:
    root, port = folder / "root", free_port()
    (root / BUCKET).mkdir(parents=True)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("rclone"), "serve", "s3", "--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}",
         "--addr", f"127.0.0.1:{port}", root, "--config", "/dev/null", "-q"],
    )  # fmt: skip
    try:
        wait_until("rclone answers", lambda: port_answers(port), 20)
        yield S3Server("rclone", f"http://127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def _ceph(folder: Path) -> Iterator[S3Server]:
    gateway = start_ceph(folder / "ceph")
    try:
        server = S3Server("ceph", gateway.endpoint, folder)
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        gateway.stop()
