"""Storage of tables: a local folder, or a bucket of S3 or of a service that speaks its protocol."""

import os
from abc import ABC, abstractmethod
from pathlib import Path

__all__ = ["ATTEMPTS", "CONNECT_S", "READ_S", "Storage"]

ATTEMPTS = 3
CONNECT_S = 5
READ_S = 30

_READERS = ("aws_endpoint_url", "aws_allow_http", "aws_region")


class Storage(ABC):
    """The storage below one root, with the options that libraries need to reach it.

    Made by :func:`headwater.infra.store.open_storage.open_storage`. Every method raises
    :class:`~headwater.spec.errors.StorageError` if the storage cannot be reached or refuses.

    Parameters
    ----------
    root
        The address of a folder or bucket.
    endpoint
        Of the S3 service; None for Amazon's. Credentials come from the usual ``AWS_*`` variables.
    """

    def __init__(self, root: str, endpoint: str | None) -> None:
        self.root = root
        self.endpoint = endpoint

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
            "connect_timeout": f"{CONNECT_S}s",
            "timeout": f"{READ_S}s",
            "max_retries": str(ATTEMPTS),
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

    @abstractmethod
    def prepare(self) -> None:
        """Make the folder or the bucket if it is missing."""

    @abstractmethod
    def write(self, content: bytes, *parts: str) -> str:
        """Write a file below the root, whole and synced, and return its address."""

    @abstractmethod
    def create(self, content: bytes, *parts: str) -> bool:
        """Write a new file below the root, whole and synced; return False if there is one already.

        Of several that try at once, one puts its own.
        """

    @abstractmethod
    def find(self, *parts: str) -> bytes | None:
        """Return the content of a file below the root; None if there is no such file."""

    @abstractmethod
    def put(self, file: Path, *parts: str) -> str:
        """Copy a local file below the root, whole and synced, however long it is; return its address."""

    @abstractmethod
    def read(self, *parts: str) -> bytes:
        """Return the content of a file below the root, which must be there."""

    @abstractmethod
    def fetch(self, file: Path, *parts: str) -> None:
        """Copy a file from below the root, which must be there, to a local one, however long it is."""

    @abstractmethod
    def names(self, *parts: str) -> list[str]:
        """Return the paths of all files in a folder below the root, in order, as they are below it.

        A missing folder has none; a draft that is being written is no file yet.
        """

    @abstractmethod
    def remove(self, *parts: str) -> None:
        """Remove a folder below the root with all that is in it; a missing folder is no fault."""

    @abstractmethod
    def remove_file(self, *parts: str) -> None:
        """Remove a file below the root; a missing file is no fault."""
