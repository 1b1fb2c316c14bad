"""The record of the stack below a home folder: ``stack.json`` and its lock."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headwater.infra.operator_key import read_operator_key
from headwater.infra.processes import Child, Mark, end_marked
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import replacing
from headwater.spec.errors import ServerError

__all__ = [
    "Addresses",
    "end_leftovers",
    "find_stack",
    "only_stack",
    "prefect_key",
    "remove_record",
    "write_record",
]

_NAME = "stack.json"


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of a stack.

    Parameters
    ----------
    prefect_api, prefect_ui, mlflow_ui
        Of Prefect and MLflow; if ``HEADWATER_MLFLOW_URI`` names a tracking server, that server's.
    service
        Of the inference service; None if the stack serves no pipelines.
    """

    prefect_api: str
    prefect_ui: str
    mlflow_ui: str
    service: str | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record in ``stack.json``: the starting process, and the addresses once the stack answers."""

    owner: Mark
    addresses: Addresses | None
    pids: dict[str, int]


def find_stack(settings: Settings) -> Addresses | None:
    """Return the addresses of the stack that runs on these settings; None if none runs."""
    record = _read(settings.place)
    return record.addresses if record is not None and record.owner.lives() else None


def prefect_key(api: str, settings: Settings) -> str | None:
    """Return the key of the home if Prefect at an address is its stack's; else what Prefect is told.

    Parameters
    ----------
    api
        Address of Prefect's API.
    settings
        The settings of the stack.
    """
    stack = find_stack(settings)
    if stack is not None and stack.prefect_api == api:
        return read_operator_key(settings)
    from prefect.settings import PREFECT_API_AUTH_STRING  # noqa: PLC0415 - not before its address is set

    told: str | None = PREFECT_API_AUTH_STRING.value()
    return told


def write_record(root: Path, addresses: Addresses | None, children: Sequence[Child]) -> None:
    """Write the record in place of the one before; `addresses` is None until the stack answers."""
    record = _Record(
        owner=Mark.of(os.getpid()),
        addresses=addresses,
        pids={child.name: child.pid for child in children},
    )
    with replacing(root / _NAME) as draft:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(record)))


def remove_record(root: Path) -> None:
    """Remove the record: no stack runs any more."""
    (root / _NAME).unlink(missing_ok=True)


def _read(root: Path) -> _Record | None:
    try:
        return msgspec.json.decode((root / _NAME).read_bytes(), type=_Record)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


@contextmanager
def only_stack(root: Path) -> Iterator[None]:
    """Hold the lock of the one stack below a home folder; the kernel frees a dead stack's.

    Raises
    ------
    ServerError
        If another stack holds it.
    """
    with (root / "stack.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            record = _read(root)
            where = record.addresses.prefect_ui if record and record.addresses else "starting"
            pid = f", process {record.owner.pid}" if record else ""
            raise ServerError(
                f"a stack runs already below {root}: {where}{pid}",
                hint="use that stack, or end it with Ctrl-C first",
            ) from error
        yield


def end_leftovers(root: Path) -> None:
    """End the processes that a killed stack left running."""
    record = _read(root)
    if record is not None:
        end_marked(record.owner)
        remove_record(root)
