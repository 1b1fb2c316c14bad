"""Find a declared pipeline by ``module:attribute`` or ``path.py:attribute``."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from headwater.spec.errors import DeclarationError, HeadwaterError, NotFoundError, few
from headwater.spec.pipeline import Pipeline

__all__ = ["load_module", "load_pipeline"]


def load_pipeline(reference: str) -> Pipeline:
    """Load a pipeline by where it is declared.

    A file is imported under the name it has in its package, from the folder above the package, so
    that the pipeline is the same whichever way it is named.

    Parameters
    ----------
    reference
        ``"package.module:attribute"`` or ``"folder/file.py:attribute"``.

    Raises
    ------
    NotFoundError
        If the file, the module or the attribute does not exist.
    DeclarationError
        If the attribute is no pipeline, the module fails when it is imported, or the reference has
        no colon.
    """
    where, colon, attribute = reference.rpartition(":")
    if not colon or not attribute or not where:
        raise DeclarationError(
            f"{reference!r} does not name a pipeline",
            hint="write module:attribute or path.py:attribute",
        )
    module = load_module(where)
    attribute_value = getattr(module, attribute, None)
    if isinstance(attribute_value, Pipeline):
        return attribute_value
    pipelines = [name for name, value in vars(module).items() if isinstance(value, Pipeline)]
    if attribute_value is None:
        raise NotFoundError(
            f"{where!r} has no {attribute!r}",
            hint=f"it declares {few(pipelines)}" if pipelines else "declare one: x = Pipeline(...)",
        )
    raise DeclarationError(
        f"{reference!r} is {type(attribute_value).__name__}, not a pipeline",
        hint=f"it declares {few(pipelines)}" if pipelines else "declare one: x = Pipeline(...)",
    )


def load_module(where: str) -> ModuleType:
    """Import what declares pipelines, by its name or its file.

    Parameters
    ----------
    where
        ``"package.module"`` or ``"folder/file.py"``.

    Raises
    ------
    NotFoundError, DeclarationError
        As for :func:`load_pipeline`.
    """
    module_name = _module_of(Path(where)) if where.endswith(".py") else where
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if module_name.startswith("."):
        raise DeclarationError(
            f"{where!r} is relative", hint="write module:attribute or path.py:attribute"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotFoundError(
            f"cannot import {module_name!r} for {where!r}: {error}",
            hint="check the name, or give the file: path.py:attribute",
        ) from error
    except HeadwaterError:
        raise
    except Exception as error:
        raise DeclarationError(
            f"{where!r} fails when it is imported: {type(error).__name__}: {error}",
            hint=f"mend it; python {where if where.endswith('.py') else '-m ' + where} shows where",
        ) from error
    if where.endswith(".py") and _file_of(module) != Path(where).resolve():
        raise DeclarationError(
            f"{where!r} would be the module {module_name!r}, which is {_file_of(module)} already",
            hint="give the file a name of its own, or put it in a package",
        )
    return module


def _file_of(module: ModuleType) -> Path | None:
    return Path(module.__file__).resolve() if module.__file__ else None


def _module_of(path: Path) -> str:
    path = path.resolve()
    if not path.is_file():
        raise NotFoundError(f"no file {str(path)!r}", hint="check the path")
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return ".".join(parts)
