"""Storage in a local folder: files are written beside, synced, and put in place whole."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headwater.infra.store.published_file import replacing
from headwater.infra.store.storage import Storage
from headwater.spec.errors import StorageError

__all__ = ["LocalStorage", "refusal_of"]

_TRIED_BYTES = 262_144


class LocalStorage(Storage):
    """The storage below a folder; it is made when something is first written."""

    def prepare(self) -> None:
        """Make the folder if it is missing."""
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {self.root}: {error.strerror}",
                hint="set HEADWATER_STORAGE to a folder that can be written",
            ) from error

    def write(self, content: bytes, *parts: str) -> str:
        """Write a draft, sync it, and replace the file with it."""
        self.prepare()
        path = self._path(*parts)
        with _written(path) as draft:
            draft.write_bytes(content)
        return str(path)

    def create(self, content: bytes, *parts: str) -> bool:
        """Link a synced draft, if no file is there."""
        self.prepare()
        return _created(self._path(*parts), content)

    def find(self, *parts: str) -> bytes | None:
        """Return a file's content; None if there is none."""
        path = self._path(*parts)
        with _local(path, "read"):
            return path.read_bytes() if path.exists() else None

    def put(self, file: Path, *parts: str) -> str:
        """Copy a local file as a draft, sync it, and replace the file with it."""
        self.prepare()
        path = self._path(*parts)
        with _written(path) as draft:
            shutil.copyfile(file, draft)
        return str(path)

    def read(self, *parts: str) -> bytes:
        """Return a file's content."""
        path = self._path(*parts)
        with _local(path, "read"):
            return path.read_bytes()

    def fetch(self, file: Path, *parts: str) -> None:
        """Copy a file to another local one."""
        with _local(file, "write"):
            shutil.copyfile(self._path(*parts), file)

    def names(self, *parts: str) -> list[str]:
        """Walk through a folder."""
        folder = self._path(*parts)
        with _local(folder, "read"):
            return sorted(
                (Path(parent) / name).relative_to(folder).as_posix()
                for parent, _, names in os.walk(folder)
                for name in names
                if not name.endswith(".new")
            )

    def remove(self, *parts: str) -> None:
        """Remove a folder with all that is in it."""
        folder = self._path(*parts)
        with _local(folder, "remove"):
            if folder.is_dir():
                shutil.rmtree(folder)

    def remove_file(self, *parts: str) -> None:
        """Remove a file."""
        path = self._path(*parts)
        with _local(path, "remove"):
            path.unlink(missing_ok=True)

    def _path(self, *parts: str) -> Path:
        return Path(self.address(*parts))


def refusal_of(folder: Path) -> str | None:
    """Return why a folder takes no file of some size, as on a full disk; None if it takes one."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yield a draft to write; when the block ends, it is synced, and replaces the file."""
    with _local(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            yield draft
            with draft.open("rb") as written:
                os.fsync(written.fileno())
        _sync_names(path.parent)


def _created(path: Path, content: bytes) -> bool:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    with _local(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # whole or not at all; the first of several makers wins
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _sync_names(path.parent)
    return True


def _sync_names(parent: Path) -> None:
    """Sync the names in a folder, so that they survive power loss."""
    folder = os.open(parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _local(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot {what} {path}: {error.strerror or error}",
            hint="check the disk and HEADWATER_STORAGE",
        ) from error
