"""The manifest of a backup: its position, its time, and the checksum of each of its files."""

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from headwater.infra.store.published_file import replacing
from headwater.spec.errors import IntegrityError, NotFoundError, StorageError, few

__all__ = ["LAYOUT", "BackedUpFile", "BackedUpLog", "Manifest", "Told", "check_files", "read_manifest"]

Told = Callable[[str, int, int], None]
"""Told what is at work, how much of it is done, and of how much (0 where that is not known)."""

LAYOUT = 1
"""The layout of the backups that this version writes; it reads them up to this one."""

_NAME = "backup.json"
_AT_ONCE = 1 << 20


class BackedUpFile(msgspec.Struct, frozen=True):
    """The size and the SHA-256 of a file of a backup."""

    bytes: int
    sha256: str


class BackedUpLog(msgspec.Struct, frozen=True, kw_only=True):
    """The position of one pipeline's log in a backup.

    Parameters
    ----------
    log, inbox
        The ids of the log and of its inbox file.
    position
        The inbox's last position: every record acknowledged up to it is in the backup.
    sequenced
        The inbox's position up to which the database of the backup has read.
    examples
        The number of sequenced examples.
    """

    log: str
    inbox: str
    position: int
    sequenced: int
    examples: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``backup.json``, which is written last: a folder without it is no whole backup.

    Parameters
    ----------
    layout
        :data:`LAYOUT` of the version that wrote it.
    headwater, revision
        That version, and the revision of the operational database's schema.
    at
        Every record that was acknowledged before this time is in the backup.
    pipelines
        The position of each log, by pipeline.
    storage, artifacts
        The addresses that tables and states had.
    with_key, key_in_home
        Whether the signing key is in it, and whether the home kept it as a file.
    notes
        What is not in it, and why.
    files
        Every file, by its path in the folder.
    """

    layout: int
    headwater: str
    revision: str
    at: datetime
    pipelines: dict[str, BackedUpLog]
    storage: str
    artifacts: str
    with_key: bool
    key_in_home: bool
    notes: tuple[str, ...]
    files: dict[str, BackedUpFile]

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all, once everything else is on the disk."""
        os.sync()
        with replacing(folder / _NAME) as draft:
            draft.write_bytes(msgspec.json.format(msgspec.json.encode(self)))
        os.sync()

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files.values())


class _Layout(msgspec.Struct):
    layout: int
    headwater: str = "another version"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a backup.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    IntegrityError
        If the backup is not whole, or its manifest is damaged.
    StorageError
        If it was written by a newer version of headwater.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}", hint="give the folder of a backup")
    try:
        content = (folder / _NAME).read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{folder} is no whole backup: {_NAME}, which is written last, is not in it",
            hint="use another backup: this one was interrupted, or is none",
        ) from error
    except OSError as error:
        raise StorageError(f"{folder / _NAME} cannot be read: {error.strerror}") from error
    try:
        layout = msgspec.json.decode(content, type=_Layout)
        if layout.layout > LAYOUT:
            raise StorageError(
                f"the backup {folder} has layout {layout.layout}, and this version reads up to {LAYOUT}",
                hint=f"install headwater {layout.headwater} or newer",
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"the manifest {folder / _NAME} is damaged: {error}", hint="use another backup"
        ) from error


def check_files(folder: Path, manifest: Manifest, told: Told) -> None:
    """Compare every file of a backup with the checksum in its manifest.

    Raises
    ------
    IntegrityError
        If one is missing or differs; the error names some.
    """
    wrong, done, whole = [], 0, manifest.bytes
    for name, file in manifest.files.items():
        if sum_of(folder, name) != file:
            wrong.append(name)
        done += file.bytes
        told("checking the backup", done, whole)
    if wrong:
        raise IntegrityError(
            f"{len(wrong)} files of the backup {folder} are missing or damaged: {few(wrong)}",
            hint="use another backup, or another copy of this one; nothing was restored",
        )


def sums_of(folder: Path, told: Told) -> dict[str, BackedUpFile]:
    """Return the checksums of all files below a folder, by their paths in it."""
    names = sorted(_names(folder))
    sums: dict[str, BackedUpFile] = {}
    for number, name in enumerate(names, 1):
        found = sum_of(folder, name)
        if found is not None:
            sums[name] = found
        told("checksums", number, len(names))
    return sums


def sum_of(folder: Path, name: str) -> BackedUpFile | None:
    """Return size and checksum of a file; None if it cannot be read."""
    hashed, size = hashlib.sha256(), 0
    try:
        with (folder / name).open("rb") as file:
            while some := file.read(_AT_ONCE):
                hashed.update(some)
                size += len(some)
    except OSError:
        return None
    return BackedUpFile(size, hashed.hexdigest())


def _names(folder: Path) -> Iterator[str]:
    for parent, _, files in os.walk(folder):
        yield from (str((Path(parent) / name).relative_to(folder)) for name in files)
