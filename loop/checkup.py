"""What ``headwater doctor`` checks: each store is really opened, and S3 is really asked."""

import importlib.metadata
import sys
import uuid
from collections.abc import Callable

import msgspec

from headwater.infra.database import Database
from headwater.infra.settings import Settings
from headwater.infra.storage import Storage
from headwater.spec.errors import HeadwaterError

__all__ = ["Finding", "checkup"]

_LIBRARIES = ("prefect", "mlflow", "river", "scikit-learn", "lightgbm", "polars", "deltalake", "fastapi")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked.

    Parameters
    ----------
    what, good
        What was checked, and whether it will do.
    found, hint
        What is there, and what to do about it.
    """

    what: str
    good: bool
    found: str
    hint: str = ""


def checkup(settings: Settings) -> list[Finding]:
    """Check settings, libraries and stores; never raises for what it checks."""
    return [
        _python(),
        *map(_library, _LIBRARIES),
        _try("home", lambda: str(settings.root)),
        _try("signing key", lambda: f"{len(settings.key())} bytes"),
        _try("database", lambda: _database(settings)),
        _try("storage", lambda: _storage(settings)),
        _try("MLflow", lambda: _mlflow(settings)),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding(what="Python", good=good, found=version, hint="" if good else "use 3.11 to 3.13")


def _library(name: str) -> Finding:
    try:
        return Finding(what=name, good=True, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        optional = name == "lightgbm"
        hint = "for LightGBM models: install headwater[lightgbm]" if optional else f"install {name}"
        return Finding(what=name, good=optional, found="not installed", hint=hint)


def _try(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, good=True, found=check())
    except HeadwaterError as error:
        return Finding(what=what, good=False, found=error.what, hint=error.hint)
    except OSError as error:
        return Finding(what=what, good=False, found=str(error), hint="check the path and its rights")


def _database(settings: Settings) -> str:
    database = Database(settings.operational_url)
    database.close()
    return database.engine.url.render_as_string(hide_password=True)


def _storage(settings: Settings) -> str:
    """Write, and write again under a condition that must fail: what makes commits safe on S3."""
    storage = Storage(settings)
    storage.prepare()
    if not storage.is_s3:
        return storage.root
    storage.check_conditional_write(f"doctor/{uuid.uuid4()}")
    return f"{storage.root}, conditional writes hold"


def _mlflow(settings: Settings) -> str:
    from headwater.registry.store import check_reachable  # noqa: PLC0415 - imports MLflow

    return check_reachable(settings)
