"""A process that holds the stack, as ``headwater up`` does."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from tests.patience import PATIENCE_S, await_

from headwater.flows.stack.record import Addresses, find_stack
from headwater.infra.operator_key import read_operator_key
from headwater.infra.settings import Settings

UP = """
import sys
from headwater.flows.stack.stack import running_stack
from headwater.infra.settings import Settings
from headwater.spec.errors import HeadwaterError

try:
    with running_stack(Settings(home=sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) as stack:
        stack.wait()
except HeadwaterError as error:
    sys.exit(str(error))
"""


class Up:
    """A process that holds a stack, started in another folder than its pipelines are in."""

    def __init__(self, settings: Settings, prefect_port: int = 0, mlflow_port: int = 0) -> None:
        self.settings = settings
        self.output = settings.root / "up.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", UP, str(settings.root), str(prefect_port), str(mlflow_port)],
                cwd="/",
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def addresses(self) -> Addresses:
        def found() -> Addresses | None:
            assert self.process.poll() is None, self.output.read_text()
            return find_stack(self.settings)

        return await_(found, self.output.read_text)

    def key(self) -> str:
        """Give the operator's key, which Prefect asks for."""
        key = read_operator_key(self.settings)
        assert key is not None
        return key

    def prefect(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.addresses().prefect_api, auth_string=self.key())

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let what this process asks of Prefect go to the stack's."""
        api = self.addresses().prefect_api
        with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: self.key()}):
            yield

    def end(self, sign: signal.Signals) -> int:
        tell_all()
        self.process.send_signal(sign)
        return self.process.wait(PATIENCE_S)

    def left(self) -> list[psutil.Process]:
        """Give the processes that work on these settings, whoever their parent is."""
        return [each for each in psutil.process_iter() if home_of(each) == str(self.settings.root)]


def tell_all() -> None:
    """Send what this process has to tell, before the server is gone.

    Each event that is left is tried for many seconds, up to the end of the process, and what comes after
    it goes to the same address.
    """
    EventsWorker.drain_all()


def home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HEADWATER_HOME")
    except psutil.Error:
        return None
