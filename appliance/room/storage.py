"""The institution's bucket as the controller sees it: list, presign one PUT, read back. Blocks: use a thread.

The policy's EU list is asked before a client exists (F119). No file passes through here: desks send themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from appliance.config import StorageConfig, StorageCredentials, load_config
from appliance.errors import StorageUnreachable
from appliance.policy import ExamPolicy

GRANT_LIFE_S = 900
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the bucket says of one object; `md5_hex` is its ETag, the MD5 of a single PUT."""

    size_bytes: int
    md5_hex: str


class Storage:
    """One bucket that one policy allows."""

    def __init__(self, config: StorageConfig, policy: ExamPolicy) -> None:
        """Raises StorageNotAllowed before anything else happens, BadConfig for missing credentials."""
        policy.require_storage(config.endpoint, config.region, config.bucket)
        credentials = load_config(config.credentials, StorageCredentials)
        self._bucket = config.bucket
        self._endpoint = config.endpoint
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=config.endpoint,
            region_name=config.region,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            verify=str(config.ca) if config.ca else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"max_attempts": 2, "mode": "standard"},
                # boto3 would otherwise add checksum parameters that the desk's plain PUT does not carry
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def present(self, prefix: str) -> dict[str, StoredObject]:
        """Every object below `prefix` by key; raises StorageUnreachable."""
        with self._named_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return {
                item["Key"]: StoredObject(int(item["Size"]), str(item["ETag"]).strip('"'))
                for page in pages
                for item in page.get("Contents", ())
            }

    def head(self, key: str) -> StoredObject | None:
        """One object, or None if it is not there; raises StorageUnreachable."""
        with self._named_errors():
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if _status(error) == 404:
                    return None
                raise
            return StoredObject(int(found["ContentLength"]), str(found["ETag"]).strip('"'))

    def grant(self, key: str, md5_base64: str, size_bytes: int) -> tuple[str, dict[str, str]]:
        """A presigned PUT and the headers that must go with it: exactly these bytes, for 15 minutes."""
        with self._named_errors():
            url: str = self._client.generate_presigned_url(
                "put_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": key,
                    "ContentMD5": md5_base64,
                    "ContentLength": size_bytes,
                },
                ExpiresIn=GRANT_LIFE_S,
            )
        return url, {"Content-MD5": md5_base64, "Content-Length": str(size_bytes)}

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            hint = "check the bucket's name and that it exists"
            if _status(error) in (401, 403):
                hint = "the key pair in the credentials file is wrong or lacks the right; a person must look"
            raise StorageUnreachable(
                f"storage {self._endpoint} refused: {code} ({_status(error)})", hint
            ) from error
        except BotoCoreError as error:
            raise StorageUnreachable(
                f"storage {self._endpoint} does not answer: {type(error).__name__}",
                "check the network and the certificate; recordings stay on the desks meanwhile",
            ) from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
