"""The versions that no loop of a worker runs any more, as small files that all workers see."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from headwater.infra.settings import Settings
from headwater.infra.store.published_file import replacing

__all__ = ["IsolatedVersions", "forget_isolated"]

_MOST_BYTES = 1_000
_logger = logging.getLogger("headwater.serving")


class IsolatedVersions:
    """The versions of one pipeline that predict in a process of their own, and why.

    A worker adds the version that was too slow on its loop; the parent of the workers adds the one at
    which a worker ended or stood still. They hold until the service starts again.

    Parameters
    ----------
    pipeline, settings
        The pipeline's name, and the address of the home folder.
    """

    def __init__(self, pipeline: str, settings: Settings) -> None:
        self._folder = settings.root / "live" / pipeline / "isolated"
        self._seen_ns = 0

    def changed(self) -> bool:
        """Return whether versions were added since the last call."""
        try:
            modified_ns = self._folder.stat().st_mtime_ns
        except OSError:
            return False
        changed, self._seen_ns = modified_ns != self._seen_ns, modified_ns
        return changed

    def add(self, version: str, reason: str) -> None:
        """Add a version; the first reason stays. A disk that refuses is no reason to end a process."""
        path = self._folder / version
        if path.exists():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(reason.encode()[:_MOST_BYTES])
        except OSError as error:
            _logger.warning(
                "version %s is isolated (%s), which is not noted: %s", version, reason, error
            )

    def reasons(self) -> Mapping[str, str]:
        """Return why each version is isolated, by its number."""
        try:
            files = [file for file in self._folder.iterdir() if file.name.isdigit()]
        except OSError:
            return {}
        return {file.name: file.read_text(errors="replace") for file in sorted(files)}


def forget_isolated(settings: Settings) -> None:
    """Forget the isolated versions of all pipelines, when a service starts."""
    for folder in Path(settings.root / "live").glob("*/isolated"):
        shutil.rmtree(folder, ignore_errors=True)
