"""The classes and parameters of the estimator that a model factory makes, listed to be compared."""

import ast
import hashlib
import inspect
import random
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

import numpy as np

__all__ = ["parameters_of"]

_LIBRARIES = ("builtins", "numpy", "river", "scipy", "sklearn", "lightgbm", "headwater")
_LONGEST = 200
_DRAWN = "a generator"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def parameters_of(factory: Callable[[], object]) -> dict[str, str]:
    """List the classes and parameters of a factory's estimator, all the way down.

    It says what was written, so it is the same in every process: a generator counts by its kind, and
    what differs between two calls of the factory was drawn, and is left out. A class of the user's own
    counts with all its attributes, one of a library with its parameters. Where a class or function
    comes from does not count, only its name, and its text where it stands in the factory's module; what
    it calls in turn does not.

    Parameters
    ----------
    factory
        Makes the unfitted estimator.

    Returns
    -------
    dict
        By path: ``"LogisticRegression.l2"`` is ``"0.0"``.

    Examples
    --------
    >>> from river import linear_model
    >>> found = parameters_of(linear_model.LogisticRegression)
    >>> found["LogisticRegression"], found["LogisticRegression.l2"]
    ('LogisticRegression', '0.0')
    >>> found["LogisticRegression.optimizer"], found["LogisticRegression.optimizer.lr.learning_rate"]
    ('SGD', '0.01')
    """
    first, second = _listed(factory(), factory.__module__), _listed(factory(), factory.__module__)
    return {path: text for path, text in first.items() if second.get(path) == text}


def _listed(estimator: object, module: str) -> dict[str, str]:
    return dict(_walk(type(estimator).__name__, estimator, (), module))


def _walk(path: str, value: Any, above: tuple[int, ...], module: str) -> Iterator[tuple[str, str]]:
    """List a value and all below it; a value that contains itself is not entered again."""
    text = _plain(value)
    yield from _code(path, value if callable(value) and text is not None else type(value), module)
    if text is not None:
        yield path, text
        return
    if id(value) in above:
        yield path, "itself"
        return
    parts = _parts(value)
    yield path, _kind(value, parts)
    for name, part in parts.items():
        yield from _walk(f"{path}.{name}", part, (*above, id(value)), module)


def _code(path: str, value: Any, module: str) -> Iterator[tuple[str, str]]:
    """Yield the text, without comments, of a function or class of the factory's module."""
    if getattr(value, "__module__", None) != module or not hasattr(value, "__qualname__"):
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, SyntaxError):  # typed in, or a part of a line
        return
    if value.__name__ == "<lambda>":
        parts: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    else:
        parts = [tree]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    yield f"{path}.text", f"text {_hash(chr(10).join(map(ast.unparse, parts)))}"


def _kind(value: Any, parts: Mapping[str, Any]) -> str:
    """Name the class of a value, with its steps in order; write a value without parts whole."""
    name = type(value).__name__
    if _steps(value) is not None or isinstance(value, list | tuple):
        return _bounded(f"{name} of {', '.join(parts)}" if parts else f"{name} of none")
    if parts or _is_estimator(value):
        return name
    text = repr(value)
    return name if _ADDRESS.search(text) else _bounded(text)


def _plain(value: Any) -> str | None:
    """Write a value without parts as text; None for a value with parts."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return _bounded(repr(value.item() if isinstance(value, np.generic) else value))
    if isinstance(value, random.Random | np.random.RandomState | np.random.Generator):
        return _DRAWN
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()) if value.dtype.hasobject else value.tobytes().hex()
        return f"array {value.shape} {value.dtype} {_hash(content)}"
    if isinstance(value, list | tuple) and value:
        texts = [_plain(item) for item in value]
        return None if None in texts else _bounded(f"[{', '.join(map(str, texts))}]")
    if isinstance(value, Set):
        return _bounded(f"{{{', '.join(sorted(map(repr, value)))}}}")
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return None


def _parts(value: Any) -> dict[str, Any]:
    """Return the parts of a value by name: items, parameters, attributes."""
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    parts: dict[str, Any] = {}
    if isinstance(value, Mapping):
        parts |= {str(key): item for key, item in value.items()}
    elif isinstance(value, list | tuple):
        parts |= _items(value)
    parts |= _parameters(value)
    if type(value).__module__.partition(".")[0] not in _LIBRARIES or not _is_estimator(value):
        parts |= getattr(value, "__dict__", {})
        slots = (slot for kind in type(value).__mro__ for slot in _slots(kind))
        parts |= {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}
    return parts


def _is_estimator(value: Any) -> bool:
    return hasattr(value, "get_params") or hasattr(value, "_get_params")


def _items(values: Sequence[Any]) -> dict[str, Any]:
    """Name the items of a list by their places; a step ``(name, estimator, ...)`` by its name."""
    named_items: dict[str, Any] = {}
    for place, item in enumerate(values):
        named = isinstance(item, tuple) and len(item) in {2, 3} and isinstance(item[0], str)
        if named and hasattr(item[1], "get_params"):
            named_items[item[0]] = item[1]
            if len(item) == 3:
                named_items[f"{item[0]} columns"] = item[2]
        else:
            named_items[str(place)] = item
    return named_items


def _parameters(value: Any) -> dict[str, Any]:
    """Return the parameters of an estimator of River, scikit-learn or LightGBM, or its steps."""
    if hasattr(value, "get_params"):
        return dict(value.get_params(deep=False))
    if (steps := _steps(value)) is not None:
        return steps
    if not hasattr(value, "_get_params"):
        return {}
    attributes = getattr(value, "__dict__", {})
    made = value._get_params()  # noqa: SLF001 - River's own name for it
    return {name: attributes.get(name, getattr(value, name, default)) for name, default in made.items()}


def _steps(value: Any) -> dict[str, Any] | None:
    """Return the steps of River's pipelines and unions, which bear their names."""
    steps = getattr(value, "steps", None) or getattr(value, "transformers", None)
    if not isinstance(steps, dict) or not hasattr(value, "_get_params"):
        return None
    return dict(steps) if set(value._get_params()) == set(steps) else None  # noqa: SLF001


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _bounded(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... {_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
