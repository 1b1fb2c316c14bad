"""The key of the operator on this machine, which ``headwater up`` makes and closes ``operate`` with."""

from headwater.infra.clock import Clock
from headwater.infra.operator_key import is_private, read_operator_key, write_operator_key
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.serving.access.key_store import KeyStore
from headwater.serving.access.keys import find_key

__all__ = ["LOCAL_OPERATOR", "keep_operator_key"]

LOCAL_OPERATOR = "local-operator"
"""Name of the key, which the audit shows for what was operated with it."""

_SCOPE = "operate"


def keep_operator_key(settings: Settings, clock: Clock, *, by: str) -> str:
    """Return the operator's key of a home, and make another if its file holds no valid one.

    It closes ``operate`` and nothing else. A file that others can read, or could write, holds no secret:
    its key is revoked.

    Parameters
    ----------
    settings, clock
        The home and its database, and the time.
    by
        The maker's name, for the audit.

    Raises
    ------
    ConflictError
        If somebody else made a key of that name.
    StorageError
        If the database is away.
    """
    database = Database(settings.operational_url)
    try:
        store = KeyStore(database, clock)
        key = read_operator_key(settings)
        if key is not None and is_private(settings) and _is_valid(store, key):
            return key
        made = store.keys()
        for old in made:
            if old.name == LOCAL_OPERATOR and old.revoked_at is None and old.made_by == by:
                store.revoke(old.name, by=by)
        key = store.add(LOCAL_OPERATOR, [_SCOPE], by=by, closes=[_SCOPE])
    finally:
        database.close()
    write_operator_key(settings, key)
    return key


def _is_valid(store: KeyStore, key: str) -> bool:
    hashes = store.hashes()
    found = find_key({one.number: one for one in hashes.keys}, key.encode())
    if found is None or _SCOPE not in hashes.closed:
        return False
    return (found.name, found.scopes) == (LOCAL_OPERATOR, frozenset({_SCOPE}))
