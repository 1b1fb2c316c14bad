"""Whether two payloads are of the same prediction, whatever declarations they were recorded under."""

import msgspec

__all__ = ["is_same_prediction"]


def is_same_prediction(payload: bytes, other: bytes) -> bool:
    """Return whether two predictions say the same, but for features that are null in one.

    A feature that was declared since is null in a prediction that is sent again; an int that was
    declared a float since is the same number.

    >>> is_same_prediction(b'{"features":{"a":1}}', b'{"features":{"a":1.0,"b":null}}')
    True
    >>> is_same_prediction(b'{"features":{"a":1}}', b'{"features":{"a":true}}')
    False
    """
    said = _said(payload)
    return said is not None and said == _said(other)


def _said(payload: bytes) -> dict[str, object] | None:
    try:
        record: dict[str, object] = msgspec.json.decode(payload, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    features = record.get("features")
    given = features.items() if isinstance(features, dict) else ()
    # to Python true is 1
    told = {name: (value, isinstance(value, bool)) for name, value in given if value is not None}
    return record | {"features": told}
