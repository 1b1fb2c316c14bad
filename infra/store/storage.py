"""Storage of tables: a local folder, or a bucket of S3 or of a service that speaks its protocol."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headwater.infra.settings import Settings
from headwater.infra.store.published_file import replacing
from headwater.spec.errors import StorageError

__all__ = ["Storage"]

_ATTEMPTS = 3
_CONNECT_S = 5
_READ_S = 30
_MISSING = 404
_NOT_ALONE = (409, 412)
_READERS = ("aws_endpoint_url", "aws_allow_http", "aws_region")


class Storage:
    """The storage below one root, with the options that libraries need to reach it.

    Parameters
    ----------
    settings
        Gives the root and, for S3, the endpoint. Credentials come from the usual ``AWS_*`` variables.
    """

    def __init__(self, settings: Settings) -> None:
        self.root = settings.storage_uri
        self.endpoint = settings.s3_endpoint

    @property
    def is_s3(self) -> bool:
        """Whether the root is a bucket."""
        return self.root.startswith("s3://")

    def address(self, *parts: str) -> str:
        """Return the address of something below the root."""
        return "/".join((self.root, *parts))

    @property
    def options(self) -> dict[str, str]:
        """The options that deltalake needs besides the address: endpoint, limits on retries and time."""
        return self.options_for(self.root)

    def options_for(self, address: str) -> dict[str, str]:
        """Return the options that a library needs for an address, which may be outside the root."""
        if not address.startswith("s3://"):
            return {}
        options = {
            "connect_timeout": f"{_CONNECT_S}s",
            "timeout": f"{_READ_S}s",
            "max_retries": str(_ATTEMPTS),
            "retry_timeout": "20s",
            "aws_conditional_put": "etag",
        }
        if self.endpoint:
            options["aws_endpoint_url"] = self.endpoint
            if self.endpoint.startswith("http://"):
                options["aws_allow_http"] = "true"
        options.setdefault("aws_region", os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
        return options

    def reader_options_for(self, address: str) -> dict[str, str] | None:
        """Return the options that Polars needs to read from an address; None for a local address."""
        options = self.options_for(address)
        return {name: value for name, value in options.items() if name in _READERS} or None

    def prepare(self) -> None:
        """Make the folder or the bucket if it is missing.

        Raises
        ------
        StorageError
            If it cannot be reached or made.
        """
        if not self.is_s3:
            try:
                Path(self.root).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"cannot make the folder {self.root}: {error.strerror}",
                    hint="set HEADWATER_STORAGE to a folder that can be written",
                ) from error
            return
        self._prepare_bucket()

    def write(self, content: bytes, *parts: str) -> str:
        """Write a file below the root, whole and synced, and return its address.

        Raises
        ------
        StorageError
            If it cannot be reached or written.
        """
        self.prepare()
        if not self.is_s3:
            path = Path(self.address(*parts))
            with _written(path) as draft:
                draft.write_bytes(content)
            return str(path)
        with self._reached() as (client, bucket):
            client.put_object(Bucket=bucket, Key=self._key(*parts), Body=content)
        return self.address(*parts)

    def create(self, content: bytes, *parts: str) -> bool:
        """Write a new file below the root, whole and synced; return False if there is one already.

        Of several that try at once, one puts its own.

        Raises
        ------
        StorageError
            If it cannot be reached or written.
        """
        self.prepare()
        if not self.is_s3:
            return _created(Path(self.address(*parts)), content)
        with self._reached() as (client, bucket):
            place = {"Bucket": bucket, "Key": self._key(*parts)}
            try:
                client.put_object(**place, Body=content, IfNoneMatch="*")
            except client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in _NOT_ALONE:
                    raise
                return False
        return True

    def find(self, *parts: str) -> bytes | None:
        """Return the content of a file below the root; None if there is no such file.

        Raises
        ------
        StorageError
            If it cannot be reached.
        """
        if not self.is_s3:
            path = Path(self.address(*parts))
            with _local(path, "read"):
                return path.read_bytes() if path.exists() else None
        with self._reached() as (client, bucket):
            try:
                answer = client.get_object(Bucket=bucket, Key=self._key(*parts))
            except client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != _MISSING:
                    raise
                return None
            content: bytes = answer["Body"].read()
            return content

    def put(self, file: Path, *parts: str) -> str:
        """Copy a local file below the root, whole and synced, however long it is; return its address.

        Raises
        ------
        StorageError
            If it cannot be reached or written.
        """
        self.prepare()
        if not self.is_s3:
            path = Path(self.address(*parts))
            with _written(path) as draft:
                shutil.copyfile(file, draft)
            return str(path)
        with self._reached() as (client, bucket):
            client.upload_file(str(file), bucket, self._key(*parts))
        return self.address(*parts)

    def read(self, *parts: str) -> bytes:
        """Return the content of a file below the root.

        Raises
        ------
        StorageError
            If it cannot be reached, or is not there.
        """
        if not self.is_s3:
            with _local(Path(self.address(*parts)), "read"):
                return Path(self.address(*parts)).read_bytes()
        with self._reached() as (client, bucket):
            content: bytes = client.get_object(Bucket=bucket, Key=self._key(*parts))["Body"].read()
            return content

    def fetch(self, file: Path, *parts: str) -> None:
        """Copy a file from below the root to a local one, however long it is.

        Raises
        ------
        StorageError
            If it cannot be reached, is not there, or cannot be written.
        """
        if not self.is_s3:
            with _local(file, "write"):
                shutil.copyfile(self.address(*parts), file)
            return
        with self._reached() as (client, bucket):
            client.download_file(bucket, self._key(*parts), str(file))

    def remove(self, *parts: str) -> None:
        """Remove a folder below the root with all that is in it; a missing folder is no fault.

        Raises
        ------
        StorageError
            If it cannot be reached or removed.
        """
        if not self.is_s3:
            folder = Path(self.address(*parts))
            with _local(folder, "remove"):
                if folder.is_dir():
                    shutil.rmtree(folder)
            return
        with self._reached() as (client, bucket):
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=f"{self._key(*parts)}/"):
                for entry in page.get("Contents", ()):
                    client.delete_object(Bucket=bucket, Key=entry["Key"])

    def remove_file(self, *parts: str) -> None:
        """Remove a file below the root; a missing file is no fault.

        Raises
        ------
        StorageError
            If it cannot be reached or removed.
        """
        if not self.is_s3:
            with _local(Path(self.address(*parts)), "remove"):
                Path(self.address(*parts)).unlink(missing_ok=True)
            return
        with self._reached() as (client, bucket):
            client.delete_object(Bucket=bucket, Key=self._key(*parts))

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
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        bucket, prefix = self._bucket()
        place = {"Bucket": bucket, "Key": f"{prefix}/{key}".lstrip("/")}
        try:
            client = self._client()
            client.put_object(**place, Body=b"one", IfNoneMatch="*")
            try:
                client.put_object(**place, Body=b"two", IfNoneMatch="*")
                overwritten = True
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in _NOT_ALONE:
                    raise
                overwritten = False
            client.delete_object(**place)
        except (BotoCoreError, ClientError) as error:
            raise self._away(bucket, error) from error
        if overwritten:
            raise StorageError(
                f"the service of bucket {bucket!r} ignores conditional writes",
                hint="use one that honours If-None-Match, or let one process alone collect",
            )

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """Yield a client and the bucket; errors within become :class:`StorageError`."""
        from boto3.exceptions import Boto3Error  # noqa: PLC0415 - only where S3 is used
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        bucket, _ = self._bucket()
        try:
            yield self._client(), bucket
        except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
            raise self._away(bucket, error) from error

    def _key(self, *parts: str) -> str:
        return "/".join((self._bucket()[1], *parts)).lstrip("/")

    def _bucket(self) -> tuple[str, str]:
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        return bucket, prefix

    def _client(self) -> Any:
        import boto3  # noqa: PLC0415 - only where S3 is used
        from botocore.config import Config  # noqa: PLC0415

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
            config=Config(
                connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries={"max_attempts": _ATTEMPTS}
            ),
        )

    def _away(self, bucket: str, error: Exception) -> StorageError:
        return StorageError(
            f"cannot reach the bucket {bucket!r} at {self.endpoint or 'S3'}: {error}",
            hint="check that the service runs, HEADWATER_S3_ENDPOINT and the AWS_* variables",
        )

    def _prepare_bucket(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        bucket, _ = self._bucket()
        try:
            client = self._client()
            try:
                client.head_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                    raise
                client.create_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as error:
            raise self._away(bucket, error) from error


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yield a draft to write; when the block ends, it is synced, and replaces the file."""
    with _local(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            yield draft
            with draft.open("rb") as written:
                os.fsync(written.fileno())
        _sync_names(path.parent)


def _created(path: Path, content: bytes) -> bool:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    with _local(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # whole or not at all; the first of several makers wins
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _sync_names(path.parent)
    return True


def _sync_names(parent: Path) -> None:
    """Sync the names in a folder, so that they survive power loss."""
    folder = os.open(parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _local(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot {what} {path}: {error.strerror or error}",
            hint="check the disk and HEADWATER_STORAGE",
        ) from error
