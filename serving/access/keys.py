"""Hashes of the API keys, in a file that the keeper publishes and the workers follow.

A key is 256 random bits, so it cannot be guessed from its hash: plain SHA-256 is enough, where a
password would need a slow hash with a salt. With a fast hash a worker can check every request, and
with the file it needs no database for that. Only the file's owner can read it.
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

__all__ = ["KeyFile", "KeyHash", "KeyHashes", "find_key", "hash_of"]

_LONGEST = 100


class KeyHash(msgspec.Struct, frozen=True, kw_only=True):
    """The hash by which a worker recognises a key.

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
    """The hashes of all valid keys.

    Parameters
    ----------
    closed
        Whether a key was ever made: from then on requests need one, even after all are revoked.
    keys
        The valid keys.
    """

    closed: bool
    keys: tuple[KeyHash, ...] = ()


class KeyFile:
    """The file that holds the hashes of the valid keys.

    Parameters
    ----------
    settings
        The address of the home folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.path: Path = settings.root / "live" / "keys.json"

    def publish(self, keys: KeyHashes) -> None:
        """Replace the valid keys; workers follow within a moment."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"keys.json.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(keys))
        draft.replace(self.path)

    def stamp(self) -> tuple[int, int]:
        """Return a stamp that changes with each publication; zeros if there is no file."""
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino

    def read(self) -> KeyHashes | None:
        """Return the valid keys; None before the first publication.

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


def find_key(keys: Mapping[int, KeyHash], text: bytes) -> KeyHash | None:
    """Return the valid key that a text is; None if it is none.

    The number in the text selects the hash, which is compared in constant time.

    Parameters
    ----------
    keys
        The valid keys, by number.
    text
        The text that a request bears as its key.
    """
    parts = text.split(b"_", 2)
    if len(parts) != 3 or not parts[1].isdigit() or len(text) > _LONGEST:
        return None
    key = keys.get(int(parts[1]))
    if key is None or not hmac.compare_digest(key.sha256, hash_of(text)):
        return None
    return key


def hash_of(key: bytes) -> bytes:
    """Return the SHA-256 hash of a key, which is all that is stored of it."""
    return hashlib.sha256(key).digest()
