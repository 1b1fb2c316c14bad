"""Hashes of the API keys, in a file that the keeper publishes and the workers follow.

A key is 256 random bits, so it cannot be guessed from its hash: plain SHA-256 is enough, where a
password would need a slow hash with a salt. With a fast hash a worker can check every request, and
with the file it needs no database for that. Only the file's owner can read it.
"""

import hashlib
import hmac
from collections.abc import Mapping

import msgspec

from headwater.infra.settings import Settings
from headwater.infra.store.published_file import PublishedFile
from headwater.serving.api.operation import Scope

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
        The scopes that any key closes, the revoked ones too: for these, requests need a key.
    keys
        The valid keys.
    """

    closed: frozenset[Scope]
    keys: tuple[KeyHash, ...] = ()


class KeyFile(PublishedFile[KeyHashes]):
    """The file that holds the hashes of the valid keys.

    Parameters
    ----------
    settings
        The address of the home folder.
    """

    def __init__(self, settings: Settings) -> None:
        path = settings.root / "live" / "keys.json"
        super().__init__(path, KeyHashes, "start the service again: headwater serve", private=True)


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
