"""API keys as a worker knows them: hashes in a file, which the keeper publishes and workers follow.

A key is 256 random bits, so it cannot be guessed from its hash: plain SHA-256 is enough, where a
password would need a slow hash with a salt. A fast one lets every request be checked, and the file
lets it be checked without a database. Only its owner can read the file.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from headwater.infra.settings import Settings
from headwater.serving.api.operation import Scope
from headwater.spec.errors import StorageError

__all__ = ["KeyFile", "KeyHash", "KeyHashes", "found_in", "hash_of"]

_LONGEST = 100


class KeyHash(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know a key again.

    Parameters
    ----------
    number, name, scopes
        As in :class:`Key`.
    sha256
        Of the whole key.
    """

    number: int
    name: str
    scopes: frozenset[Scope]
    sha256: bytes


class KeyHashes(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that hold.

    Parameters
    ----------
    closed
        Whether a key was ever made: from then on a request needs one, though all may be revoked.
    keys
        Those that hold.
    """

    closed: bool
    keys: tuple[KeyHash, ...] = ()


class KeyFile:
    """The file of the keys that hold.

    Parameters
    ----------
    settings
        Where the home folder is.
    """

    def __init__(self, settings: Settings) -> None:
        self.path: Path = settings.root / "live" / "keys.json"

    def publish(self, keys: KeyHashes) -> None:
        """Say which keys hold; workers follow within a moment."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"keys.json.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(keys))
        draft.replace(self.path)

    def stamp(self) -> tuple[int, int]:
        """Give what changes whenever something is published; zeros where there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def read(self) -> KeyHashes | None:
        """Give the keys that hold; None where nothing was published yet.

        Raises
        ------
        StorageError
            If the file cannot be read.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=KeyHashes)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(
                f"{self.path} cannot be read", hint="start the service again: headwater serve"
            ) from error


def found_in(keys: Mapping[int, KeyHash], told: bytes) -> KeyHash | None:
    """Give the key that a request bears, if it holds.

    The number in a key only says which hash to compare with, in constant time.

    Parameters
    ----------
    keys
        Those that hold, by number.
    told
        What the request bears.
    """
    parts = told.split(b"_", 2)
    if len(parts) != 3 or not parts[1].isdigit() or len(told) > _LONGEST:
        return None
    key = keys.get(int(parts[1]))
    if key is None or not hmac.compare_digest(key.sha256, hash_of(told)):
        return None
    return key


def hash_of(key: bytes) -> bytes:
    """Give what is kept of a key."""
    return hashlib.sha256(key).digest()
