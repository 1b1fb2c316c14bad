"""The checks of ``headwater doctor``: they open each store, and write to S3."""

import importlib.metadata
import os
import stat
import sys
import uuid
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import make_url

from headwater.features.identity.belonging import check_file, check_home
from headwater.features.identity.home_log import HomeLog
from headwater.features.read.archive import Archive
from headwater.features.read.repository import registered
from headwater.features.record.inbox import inbox_file
from headwater.infra.ids import made_at
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Identity, identity_of
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.s3_storage import S3Storage
from headwater.monitoring.performance.performance_table import open_performance
from headwater.spec.errors import HeadwaterError, IdentityError, StorageError, TableError

__all__ = ["CheckResult", "check_logs", "checkup"]

_NOT_YET = "not there yet: the first command that needs it makes it"
_LIBRARIES = ("prefect", "mlflow", "river", "scikit-learn", "lightgbm", "polars", "deltalake", "fastapi")


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Parameters
    ----------
    what, good
        The name of the check, and whether it passed.
    found, hint
        The state that the check found, and how to mend it.
    """

    what: str
    good: bool
    found: str
    hint: str = ""


def checkup(settings: Settings) -> list[CheckResult]:
    """Check settings, libraries, stores and the logs of the stores; faults are results, not raised.

    Nothing is made that was not there; on S3 an object is written and deleted again.
    """
    checks = (
        ("signing key", _key),
        ("database", _database),
        ("storage", _storage),
        ("MLflow", _mlflow),
    )
    return [
        _python(),
        *map(_library, _LIBRARIES),
        _home(settings),
        *(_try(what, partial(check, settings)) for what, check in checks),
        *(check_logs(settings) if settings.place.exists() else ()),
    ]


def check_logs(settings: Settings) -> list[CheckResult]:
    """Find the log of each pipeline of the home, and every store that belongs to another log.

    The check changes nothing.
    """
    if _is_missing(settings.operational_url):
        return _strays(settings, ())
    try:
        database = Database(settings.operational_url)
    except HeadwaterError:
        return []  # the check of the database reports it
    with closing(database):
        numbers = registered(database)
        return _strays(settings, numbers) + [
            finding
            for name, number in sorted(numbers.items())
            for finding in _log(name, number, database, settings)
        ]


def _strays(settings: Settings, known: Collection[str]) -> list[CheckResult]:
    return [
        _try(f"log of {name}", partial(_stray, path))
        for name, path in _inboxes(settings).items()
        if name not in known
    ]


def _log(name: str, number: int, database: Database, settings: Settings) -> list[CheckResult]:
    what = f"log of {name}"
    try:
        identity = identity_of(database, number)
    except IdentityError as error:
        return [CheckResult(what=what, good=False, found=error.what, hint=error.hint)]
    home, storage = HomeLog(name, settings), open_storage(settings)
    checks: list[Callable[[], object]] = [
        lambda: check_home(database, number, inbox_file(name, settings)),
        Archive(storage, identity).check,
        lambda: open_performance(storage, identity),
        lambda: _check_mlflow(identity, settings),
        *(partial(home.check, file) for file in sorted((settings.root / "live" / name).rglob("*.json"))),
    ]
    refused = []
    for check in checks:
        with suppress(TableError, StorageError):  # away or damaged, which does not show another log
            try:
                check()
            except IdentityError as error:
                refused.append(CheckResult(what=what, good=False, found=error.what, hint=error.hint))
    begun = made_at(identity.log)
    since = "" if begun is None else f", begun {begun:%Y-%m-%d %H:%M} UTC"
    return refused or [CheckResult(what=what, good=True, found=f"{identity.log}{since}")]


def _stray(path: Path) -> str:
    """Describe an inbox whose pipeline the database does not know."""
    check_file(path)
    return "none yet: nothing was collected"


def _inboxes(settings: Settings) -> dict[str, Path]:
    return {path.stem: path for path in sorted((settings.root / "inbox").glob("*.sqlite"))}


def _check_mlflow(identity: Identity, settings: Settings) -> None:
    from headwater.registry.mlflow_store.connection import check_owned  # noqa: PLC0415 - imports MLflow

    check_owned(identity, settings)


def _python() -> CheckResult:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return CheckResult(what="Python", good=good, found=version, hint="" if good else "use 3.11 to 3.13")


def _library(name: str) -> CheckResult:
    try:
        return CheckResult(what=name, good=True, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        optional = name == "lightgbm"
        hint = "for LightGBM models: install headwater[lightgbm]" if optional else f"install {name}"
        return CheckResult(what=name, good=optional, found="not installed", hint=hint)


def _try(what: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(what=what, good=True, found=check())
    except HeadwaterError as error:
        return CheckResult(what=what, good=False, found=error.what, hint=error.hint)
    except OSError as error:
        return CheckResult(what=what, good=False, found=str(error), hint="check the path and its rights")


def _home(settings: Settings) -> CheckResult:
    """Describe the home, and who can read it: it holds a key, and all that was served."""
    place = settings.place
    if not place.exists():
        return CheckResult(what="home", good=True, found=f"{place}, {_NOT_YET}")
    status = place.stat()
    rights = stat.S_IMODE(status.st_mode)
    if rights & settings.withheld:
        return CheckResult(
            what="home",
            good=status.st_uid != os.getuid(),  # a volume's folder is made by others
            found=f"{place} can be read by others of this machine ({rights:04o})",
            hint=f"close it: chmod {'2770' if settings.group else '700'} {place}",
        )
    return CheckResult(what="home", good=True, found=str(place))


def _key(settings: Settings) -> str:
    if settings.signing_key is None and not (settings.place / "signing.key").exists():
        return _NOT_YET
    return f"{len(settings.key())} bytes"


def _is_missing(url: str) -> bool:
    """Return whether an address is that of a SQLite file that is not there."""
    parsed = make_url(url)
    local = parsed.get_backend_name() == "sqlite" and parsed.database
    return bool(local) and not Path(str(parsed.database)).exists()


def _database(settings: Settings) -> str:
    if settings.database_url is None and not settings.place.exists():
        return _NOT_YET
    if _is_missing(settings.operational_url):
        return _NOT_YET
    database = Database(settings.operational_url)
    database.close()
    return database.engine.url.render_as_string(hide_password=True)


def _storage(settings: Settings) -> str:
    """Write, and write again under a condition that must fail: commits on S3 rely on that."""
    if settings.storage is None and not settings.place.exists():
        return _NOT_YET
    storage = open_storage(settings)
    if not isinstance(storage, S3Storage):
        return storage.root if Path(storage.root).exists() else f"{storage.root}, {_NOT_YET}"
    storage.check_bucket()
    storage.check_conditional_write(f"doctor/{uuid.uuid4()}")
    return f"{storage.root}, conditional writes hold"


def _mlflow(settings: Settings) -> str:
    from headwater.registry.mlflow_store.connection import check_reachable  # noqa: PLC0415 - imports MLflow

    if settings.mlflow_uri is None and not settings.place.exists():
        return _NOT_YET
    if settings.tracking_uri.startswith("sqlite:") and _is_missing(settings.tracking_uri):
        return _NOT_YET
    return check_reachable(settings)
