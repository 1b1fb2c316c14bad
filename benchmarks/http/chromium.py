"""A headless Chromium, driven over its DevTools protocol."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from headwater.spec.errors import ServerError

__all__ = ["Tab", "chromium"]

_PATIENCE_S = 120.0
_LOOK_S = 0.05
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


class Tab:
    """A tab of a browser.

    Parameters
    ----------
    connection
        To its DevTools.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self._ask("Page.enable")

    def open(self, address: str) -> None:
        """Open a page, and wait until it is there, whatever its status."""
        self._ask("Page.navigate", url=address)
        deadline = time.monotonic() + _PATIENCE_S
        while self.run("[location.href, document.readyState]") != [address, "complete"]:
            if time.monotonic() > deadline:
                raise ServerError(f"Chromium does not open {address}", hint="look at its own errors")
            time.sleep(_LOOK_S)

    def run(self, script: str) -> Any:
        """Run a script of the page; return its value, or what its promise comes to."""
        found = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise ServerError(f"a script of the page fails: {found['exceptionDetails']}", hint="see it")
        return found["result"].get("value")

    def _ask(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(_PATIENCE_S))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise ServerError(f"{method}: {answer['error']}", hint="see Chromium's DevTools")
                return dict(answer["result"])


@contextmanager
def chromium(names: Mapping[str, str]) -> Iterator[Tab]:
    """Start Chromium, and yield a tab of it.

    Parameters
    ----------
    names
        Addresses by names that Chromium resolves itself, whatever a name server says.

    Raises
    ------
    ServerError
        If it is not installed, or does not start.
    """
    rules = ", ".join(f"MAP {name} {address}" for name, address in names.items())
    with tempfile.TemporaryDirectory(
        prefix="headwater-chromium-", ignore_cleanup_errors=True
    ) as profile:
        command = [_program(), "--headless=new", "--disable-gpu", "--no-first-run", "--no-proxy-server"]
        command += ["--disable-background-networking", "--disable-dev-shm-usage", "--mute-audio"]
        command += [f"--user-data-dir={profile}", "--remote-debugging-port=0"]
        command += [f"--host-resolver-rules={rules}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")
        with (Path(profile) / "output").open("wb") as output:
            process = subprocess.Popen([*command, "about:blank"], stdout=output, stderr=output)
        try:
            with connect(_tab_of(Path(profile), process), max_size=None) as connection:
                yield Tab(connection)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program() -> str:
    for name in _PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ServerError("there is no Chromium on this machine", hint="apt-get install chromium")


def _tab_of(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Wait until Chromium has said where its DevTools listen; return the address of its tab."""
    port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists() and (lines := port_file.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                for target in json.load(answer):
                    if target["type"] == "page":
                        return str(target["webSocketDebuggerUrl"])
        time.sleep(_LOOK_S)
    said = (profile / "output").read_text(errors="replace")[-500:]
    raise ServerError(f"Chromium does not start: {said}", hint="start it by hand: chromium --headless")
