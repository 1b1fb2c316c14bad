"""The user's own modules that a model factory's module imports: they are not kept with a version."""

import ast
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

__all__ = ["own_modules"]

_INSTALLED = ("site-packages", "dist-packages")


def own_modules(module_name: str, function: str, beside: Iterable[str] = ()) -> tuple[str, ...]:
    """Name the user's own modules that running a factory's module again imports, directly or not.

    A module is the user's own if its file lies below the folder that holds the factory's module, or its
    top package, or below the current folder where that holds it. Installed packages and headwater are
    not. An import in a function counts where the module's statements or the factory refer to it.

    Parameters
    ----------
    module_name, function
        Of the factory, which was called.
    beside
        Names of modules that are needed whatever the text says.

    Returns
    -------
    tuple of str
        Sorted. Empty packages are left out, and so is an import whose name is computed.
    """
    first = sys.modules[module_name]
    roots, modules, waiting = _roots(first), {module_name: first}, [first]
    while waiting:
        module = waiting.pop()
        named = [*_imported(module, function), *beside] if module is first else _imported(module, None)
        for name in named:
            other = sys.modules.get(name)
            if other is not None and name not in modules and _is_own(other, roots):
                modules[name] = other
                waiting.append(other)
    return tuple(sorted(name for name, one in modules.items() if one is not first and _tree(one).body))


def _roots(module: ModuleType) -> list[Path]:
    path = _file_of(module)
    if path is None:
        return []
    up = module.__name__.count(".") + path.name.startswith("__init__.")
    root, here = path.parents[up], Path.cwd()
    return [root, here] if root.is_relative_to(here) else [root]


def _is_own(module: ModuleType, roots: list[Path]) -> bool:
    path = _file_of(module)
    if path is None or module.__name__.partition(".")[0] == "headwater":
        return False
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    if path.is_relative_to(standard) or any(name in path.parts for name in _INSTALLED):
        return False
    return any(path.is_relative_to(root) for root in roots)


def _file_of(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return None if path is None else Path(path).resolve()


def _tree(module: ModuleType) -> ast.Module:
    """Parse a module's text, without its docstring; empty if there is none."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])
    if ast.get_docstring(tree, clean=False) is not None:
        del tree.body[0]
    return tree


def _imported(module: ModuleType, function: str | None) -> Iterator[str]:
    """Name what a module imports; given a function, only what its statements and that function reach."""
    tree, package = _tree(module), module.__package__ or ""
    for node in tree.body if function is None else _reached(tree, function):
        for inner in _running(node):
            if isinstance(inner, ast.Import):
                for alias in inner.names:
                    yield from _with_parents(alias.name)
            elif isinstance(inner, ast.ImportFrom):
                base = resolve_name("." * inner.level + (inner.module or ""), package)
                yield from _with_parents(base)
                yield from (f"{base}.{alias.name}" for alias in inner.names)
            elif isinstance(inner, ast.Call) and inner.args and _is_import(inner.func):
                name = inner.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield from _with_parents(resolve_name(name.value, package))


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _reached(tree: ast.Module, function: str) -> list[ast.AST]:
    """Return a module's statements, and the functions that they or a function refer to."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = {node.name: node for node in tree.body if isinstance(node, kinds)}
    nodes: list[ast.AST] = [node for node in tree.body if not isinstance(node, kinds)]
    nodes += [one for node in functions.values() for one in node.decorator_list]
    nodes += [functions.pop(function)] if function in functions else []
    for node in nodes:  # which grows as it is read
        for inner in _running(node):
            if isinstance(inner, ast.Name) and inner.id in functions:
                nodes.append(functions.pop(inner.id))
    return nodes


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the nodes that run when a module runs again, without its guarded blocks."""
    waiting = [node]
    while waiting:
        inner = waiting.pop()
        yield inner
        guarded = isinstance(inner, ast.If) and any(
            getattr(part, "id", getattr(part, "attr", "")) in ("TYPE_CHECKING", "__name__")
            for part in ast.walk(inner.test)
        )
        waiting += inner.orelse if isinstance(inner, ast.If) and guarded else ast.iter_child_nodes(inner)


def _is_import(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("import_module", "__import__")
