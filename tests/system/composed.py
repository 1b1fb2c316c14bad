"""What infra/compose.yaml starts, started without containers: its very commands and environments.

Addresses of services become ports on loopback, volumes become folders; nothing else is changed.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.patience import PATIENCE_S, slowed

__all__ = ["COMPOSE", "Composed", "interpolated"]

COMPOSE = Path(__file__).parents[2] / "infra" / "compose.yaml"
_IMAGE = COMPOSE.with_name("Dockerfile")
_SET = re.compile(r"^(?:ENV|   ) (?P<name>[A-Z_]+)=(?P<value>\S+)", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """Put variables into a text as compose does; KeyError where a required one is not given."""

    def value(found: re.Match[str]) -> str:
        name, how, rest = found["name"], found["how"], found["rest"] or ""
        if given.get(name):
            return given[name]
        if how == "?":
            raise KeyError(name)
        return rest

    return _VARIABLE.sub(value, text)


class Composed:
    """The services of the compose file.

    Parameters
    ----------
    given
        The variables that the file asks for.
    ports
        Where a service's address (``"postgres:5432"``) is on loopback.
    folders
        Where what containers have mounted is: ``"home"`` and so on, and ``"/pipelines"``.
    """

    def __init__(
        self, given: Mapping[str, str], ports: Mapping[str, int], folders: Mapping[str, Path]
    ) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(
            interpolated(COMPOSE.read_text(), given)
        )["services"]
        self._ports = ports
        self._folders = folders

    @property
    def files(self) -> Path:
        """The folder that is ``/pipelines``."""
        return self._folders["/pipelines"]

    def environment(self, name: str) -> dict[str, str]:
        """Give the environment of a service, and nothing of this process but where programs are."""
        image = _SET.findall(_IMAGE.read_text().rpartition("\nFROM ")[2])
        told = {**dict(image), **self._of(name)}
        own = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self._folders["home"]),
        }
        return {key: self._here(str(value), name) for key, value in told.items()} | own

    def command(self, name: str) -> list[str]:
        """Give the command of a service."""
        found = [self._here(str(part), name) for part in self.services[name]["command"]]
        return [part.replace("0.0.0.0", "127.0.0.1") for part in found]

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in a service's environment, as ``docker compose run`` does."""
        return subprocess.run(
            command or self.command(name),
            env=self.environment(name),
            cwd=self.files,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    @contextmanager
    def started(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a service; end it as compose does, within the time that the file gives it."""
        log = self._folders["logs"] / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=self.files,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(slowed(int(self.services[name]["stop_grace_period"].removesuffix("s"))))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def is_healthy(self, name: str) -> bool:
        """Ask what the service's own health check asks."""
        kind, program, *rest = self.services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        asked = [self._here(part, name) for part in rest]
        return subprocess.run([sys.executable, *asked], capture_output=True, check=False).returncode == 0

    def log(self, name: str) -> str:
        """Give what a service wrote."""
        return (self._folders["logs"] / f"{name}.log").read_text()

    def _of(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.services[name]["environment"]
        return found

    def _here(self, text: str, name: str) -> str:
        """Turn addresses and folders of containers into those of this machine."""
        for address, port in self._ports.items():
            service, _, inside = address.partition(":")
            text = re.sub(rf"(?<=[@/]){address}\b", f"127.0.0.1:{port}", text)
            if service == name:
                text = re.sub(rf"(?<=127\.0\.0\.1:){inside}\b", str(port), text)
                text = re.sub(rf"^(--port=)?{inside}$", rf"\g<1>{port}", text)
        home = self._folders["prefect" if name == "prefect" else "home"]
        return text.replace("/var/lib/headwater", str(home)).replace(
            "/pipelines", str(self._folders["/pipelines"])
        )
