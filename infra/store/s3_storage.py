"""Storage in a bucket of S3, or of a service that speaks its protocol."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headwater.infra.store.storage import ATTEMPTS, CONNECT_S, READ_S, Storage
from headwater.spec.errors import StorageError

__all__ = ["S3Storage"]

_MISSING = 404
_NOT_ALONE = (409, 412)


class S3Storage(Storage):
    """The storage below a prefix of a bucket."""

    def __init__(self, root: str, endpoint: str | None) -> None:
        super().__init__(root, endpoint)
        self._bucket, _, self._prefix = root.removeprefix("s3://").partition("/")

    def prepare(self) -> None:
        """Make the bucket if it is missing."""
        with self._reached() as client:
            try:
                client.head_bucket(Bucket=self._bucket)
            except client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                    raise
                client.create_bucket(Bucket=self._bucket)

    def write(self, content: bytes, *parts: str) -> str:
        """Put an object."""
        self.prepare()
        with self._reached() as client:
            client.put_object(**self._object(*parts), Body=content)
        return self.address(*parts)

    def create(self, content: bytes, *parts: str) -> bool:
        """Put an object on the condition that none is there."""
        self.prepare()
        with self._reached() as client:
            return _put_new(client, self._object(*parts), content)

    def find(self, *parts: str) -> bytes | None:
        """Return an object's content; None if there is none."""
        with self._reached() as client:
            try:
                answer = client.get_object(**self._object(*parts))
            except client.exceptions.ClientError as error:
                if _status(error) != _MISSING:
                    raise
                return None
            content: bytes = answer["Body"].read()
            return content

    def put(self, file: Path, *parts: str) -> str:
        """Upload a local file, in parts if it is long."""
        self.prepare()
        with self._reached() as client:
            client.upload_file(str(file), **self._object(*parts))
        return self.address(*parts)

    def read(self, *parts: str) -> bytes:
        """Return an object's content."""
        with self._reached() as client:
            content: bytes = client.get_object(**self._object(*parts))["Body"].read()
            return content

    def fetch(self, file: Path, *parts: str) -> None:
        """Download an object to a local file, in parts if it is long."""
        with self._reached() as client:
            client.download_file(**self._object(*parts), Filename=str(file))

    def names(self, *parts: str) -> list[str]:
        """List the objects below a prefix; a missing bucket has none."""
        folder = self._folder(*parts)
        with self._reached() as client:
            try:
                return [key.removeprefix(folder) for key in _keys(client, self._bucket, folder)]
            except client.exceptions.ClientError as error:
                if _status(error) != _MISSING:
                    raise
                return []

    def remove(self, *parts: str) -> None:
        """Delete all objects below a prefix."""
        with self._reached() as client:
            for key in _keys(client, self._bucket, self._folder(*parts)):
                client.delete_object(Bucket=self._bucket, Key=key)

    def remove_file(self, *parts: str) -> None:
        """Delete an object."""
        with self._reached() as client:
            client.delete_object(**self._object(*parts))

    def check_bucket(self) -> None:
        """Check that the bucket is there, and make none.

        Raises
        ------
        StorageError
            If it is not, or the service cannot be reached.
        """
        with self._reached() as client:
            try:
                client.head_bucket(Bucket=self._bucket)
            except client.exceptions.ClientError as error:
                if _status(error) != 404:
                    raise
                raise StorageError(
                    f"there is no bucket {self._bucket!r} at {self.endpoint or 'S3'}",
                    hint="make it, or correct HEADWATER_STORAGE; a command that writes makes it, too",
                ) from error

    def check_conditional_write(self, key: str) -> None:
        """Check that the S3 service honours conditional writes, on which Delta's commits rest.

        Parameters
        ----------
        key
            An object below the root to try with; deleted again.

        Raises
        ------
        StorageError
            If the service overwrites, or cannot be reached.
        """
        place = self._object(key)
        with self._reached() as client:
            client.put_object(**place, Body=b"one", IfNoneMatch="*")
            overwritten = _put_new(client, place, b"two")
            client.delete_object(**place)
        if overwritten:
            raise StorageError(
                f"the service of bucket {self._bucket!r} ignores conditional writes",
                hint="use one that honours If-None-Match, or let one process alone collect",
            )

    def _object(self, *parts: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": "/".join((self._prefix, *parts)).lstrip("/")}

    def _folder(self, *parts: str) -> str:
        """Return the beginning of all keys below a folder; of all in the bucket, where that is it."""
        folder = "/".join(part for part in (self._prefix, *parts) if part)
        return f"{folder}/" if folder else ""

    @contextmanager
    def _reached(self) -> Iterator[Any]:
        """Yield a client; errors within become :class:`StorageError`."""
        import boto3  # noqa: PLC0415 - only where S3 is used
        from boto3.exceptions import Boto3Error  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            yield boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
                config=Config(
                    connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"max_attempts": ATTEMPTS}
                ),
            )
        except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
            raise StorageError(
                f"cannot reach the bucket {self._bucket!r} at {self.endpoint or 'S3'}: {error}",
                hint="check that the service runs, HEADWATER_S3_ENDPOINT and the AWS_* variables",
            ) from error


def _keys(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    """Yield the keys below a prefix, page by page."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (entry["Key"] for entry in page.get("Contents", ()))


def _put_new(client: Any, place: dict[str, str], content: bytes) -> bool:
    """Put an object where none is; return False if there is one."""
    try:
        client.put_object(**place, Body=content, IfNoneMatch="*")
    except client.exceptions.ClientError as error:
        if _status(error) not in _NOT_ALONE:
            raise
        return False
    return True


def _status(error: Any) -> int:
    status: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status
