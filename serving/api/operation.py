"""An operation of the service: its path, body, answer, and the scopes of a key for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, get_args

import msgspec

from headwater.features.record.checks import plain_words
from headwater.spec.errors import DeclarationError, SchemaError

if TYPE_CHECKING:
    from headwater.loop.operator.operations import Operator

__all__ = ["SCOPES", "Operation", "Scope"]

Scope = Literal["predict", "label", "operate", "read"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""The scopes that a key may have; none includes another."""

Body = TypeVar("Body")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation(Generic[Body, Result]):
    """A request that the service takes over HTTP.

    Parameters
    ----------
    name
        Unique; the document's operation id.
    at
        Method and path; ``{key:any}`` in a path stands for any text, slashes included.
    takes
        Type of the body, or of the query for GET; NoneType for neither.
    gives
        Type of the answer, or the types of which it is one.
    scopes
        A key needs any of them; without scopes, no key is needed.
    tag, words
        Its group in the OpenAPI document, and its text there, whose first sentence is the summary.
    example
        A body that fits some pipeline.
    call
        Executes it in the keeper; its last argument is the caller's name. None if the worker answers.
    """

    name: str
    at: str
    takes: type[Body]
    gives: type[Result] | tuple[type, ...]
    scopes: tuple[Scope, ...]
    tag: str
    words: str
    example: Mapping[str, object] | None = None
    call: "Callable[[Operator, Body, str], Result] | None" = None

    @cached_property
    def method(self) -> str:
        """The HTTP method."""
        return self.at.partition(" ")[0]

    @cached_property
    def path(self) -> str:
        """The path, with the names of its parameters in braces."""
        return self.at.partition(" ")[2]

    def decode(self, body: bytes, query: Mapping[str, str]) -> Body:
        """Read a request.

        Raises
        ------
        SchemaError
            If it does not fit; the text names the field.
        """
        try:
            if self.method == "GET":
                if self.takes is NoneType:
                    return None  # type: ignore[return-value] # which is NoneType's only value
                return msgspec.convert(dict(query), self.takes, strict=False)
            return msgspec.json.decode(body, type=self.takes)
        except msgspec.ValidationError as error:
            raise SchemaError(plain_words(error), hint="see /docs") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SchemaError(f"the body is not readable JSON: {error}", "see /docs") from error
        except DeclarationError as error:  # a routing that no pipeline could declare
            raise SchemaError(error.what, error.hint) from error
