"""A small disk of its own for a home, in memory."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

__all__ = ["SmallDisk"]


class SmallDisk:
    """A disk in memory that can be filled, to the last byte or the last name.

    Parameters
    ----------
    folder
        Where it is mounted.

    Raises
    ------
    PermissionError
        If this user may not mount one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", "size=200m,nr_inodes=1000,mode=700", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            raise PermissionError("a disk of its own needs the right to mount one")

    def fill(self, what: str = "bytes", leave_bytes: int = 0) -> None:
        """Fill it with bytes but for some, or with names."""
        filler = self.folder / "filler"
        filler.mkdir()
        number = 0
        with suppress(OSError):
            while what == "names":
                (filler / str(number)).touch()
                number += 1
        with suppress(OSError), (filler / "bytes").open("wb", buffering=0) as file:
            while self.free_bytes() > leave_bytes:
                file.write(bytes(4096))

    def free_bytes(self) -> int:
        """Return how much room it has."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def free(self) -> None:
        """Remove what it was filled with."""
        for file in (self.folder / "filler").iterdir():
            file.unlink()
        (self.folder / "filler").rmdir()

    def allow_reading_only(self) -> None:
        """Refuse writing to whoever opens a file from now on."""
        where = str(self.folder)
        for options in (["--bind", where, where], ["-o", "remount,bind,ro", where]):
            subprocess.run(["mount", *options], check=True)

    def allow_writing(self) -> None:
        """Allow writing again."""
        subprocess.run(["umount", str(self.folder)], check=True)

    def end(self) -> None:
        """Take it away."""
        while self.folder.is_mount():
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
