"""The ``Idempotency-Key`` of a request: a header for its labels' keys, or its predictions' ids."""

from headwater.serving.api.reply import Headers
from headwater.spec.data.values import LONGEST_NAME
from headwater.spec.errors import SchemaError

__all__ = ["HEADER", "LONGEST", "idempotency_key"]

HEADER = "Idempotency-Key"

LONGEST = LONGEST_NAME - 10
"""How many characters it may have: one of many has a key or id of it, a slash and its place."""

_NAME = HEADER.lower().encode()


def idempotency_key(headers: Headers) -> str | None:
    """Return the key that the headers bear, or None.

    Raises
    ------
    SchemaError
        If there are several, or it is not 1 to 190 printable characters of ASCII.

    Examples
    --------
    >>> idempotency_key([(b"host", b"here"), (b"idempotency-key", b"order-17")])
    'order-17'
    """
    found = [value for name, value in headers if name == _NAME]
    if not found:
        return None
    key = found[0].decode("latin-1")
    if len(found) > 1:
        why = f"comes {len(found)} times"
    elif not 0 < len(key) <= LONGEST:
        why = f"has {len(key)} characters"
    elif not (key.isascii() and key.isprintable()):
        why = f"is {key!r}"
    else:
        return key
    raise SchemaError(
        f"the header {HEADER} {why}", hint=f"send one, of 1 to {LONGEST} printable characters of ASCII"
    )
