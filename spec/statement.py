"""What a pipeline says, whole and as data: by it its declarations are told apart and compared. Pure."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta

import msgspec
from msgspec import UNSET

from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode

__all__ = ["Plain", "Statement", "statement_of"]

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What JSON holds."""

_KIND = "__kind__"  # under this name data says its class: no feature begins with two underscores
_DIGITS = 16  # of a hash: a person tells two texts apart by it


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a pipeline says, as data.

    Parameters
    ----------
    fields
        By the pipeline's field. Features are by name, and ``order`` has their names in order; the model
        is the module, the name and the hash of the code that makes it, with the parameters it makes.
    """

    fields: dict[str, Plain]

    def to_json(self) -> str:
        """Encode canonically: the same statement gives the same text in every process."""
        return msgspec.json.encode(self.fields, order="deterministic").decode()

    @classmethod
    def from_json(cls, text: str) -> "Statement":
        """Decode the text that :meth:`to_json` returned.

        Raises
        ------
        DeclarationError
            If the text has another shape.
        """
        try:
            fields = msgspec.json.decode(text, type=dict)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeclarationError(
                f"a stored declaration has another shape: {error}",
                hint="restore the database from a backup",
            ) from error
        return cls(fields=fields)

    @property
    def hash(self) -> str:
        """Hash of the text: the same in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def differing(self, other: "Statement") -> Iterator[tuple[str, str, str]]:
        """Yield path, text here and text there of what another statement says otherwise."""
        for name in dict.fromkeys((*self.fields, *other.fields)):
            yield from _differing(name, self.fields.get(name), other.fields.get(name))


def statement_of(pipeline: Pipeline, learner: LearnerCode) -> Statement:
    """Return what a pipeline says.

    Parameters
    ----------
    pipeline
        As declared.
    learner
        The code that makes its estimator, with the parameters that it makes.
    """
    said = {name: _data(getattr(pipeline, name)) for name in pipeline.__struct_fields__}
    said["features"] = {feature.name: _data(feature) for feature in pipeline.features}
    said["order"] = list(pipeline.feature_names)
    said["model"] = {
        "function": f"{learner.module}:{learner.function}",
        "adapter": learner.adapter,
        "code": hashlib.sha256(learner.source.encode()).hexdigest()[:_DIGITS],
        "parameters": {} if learner.parameters is UNSET else dict(learner.parameters),
    }
    del said["name"]
    return Statement(fields=said)


def _data(value: object) -> Plain:
    """Return a value of a declaration as JSON holds it."""
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        said: dict[str, Plain] = {_KIND: type(value).__name__}
        return said | {name: _data(field) for name, field in fields if field is not UNSET}
    if isinstance(value, Mapping):
        return {str(name): _data(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_data(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if inspect.isfunction(value):
        return f"{value.__module__}:{value.__qualname__}"
    raise TypeError(f"{type(value).__name__} is no part of a declaration")


def _differing(path: str, was: Plain, now: Plain) -> Iterator[tuple[str, str, str]]:
    if was == now and type(was) is type(now):
        return
    if isinstance(was, dict) and isinstance(now, dict) and was.get(_KIND) == now.get(_KIND):
        for name in dict.fromkeys((*was, *now)):
            yield from _differing(f"{path}.{name}", was.get(name), now.get(name))
    else:
        yield path, _text(was), _text(now)


def _text(value: Plain) -> str:
    """Return a value as a user writes it, about."""
    if value is None:
        return "not given"
    if isinstance(value, dict) and _KIND in value:
        inner = ", ".join(f"{name}={_text(one)}" for name, one in value.items() if name != _KIND)
        return f"{value[_KIND]}({inner})"
    if isinstance(value, list):
        return f"({', '.join(map(_text, value))})"
    return repr(value)
