"""The use of a home by other processes: what changes all of it waits for none, and refuses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from headwater.infra.settings import Settings
from headwater.infra.store.turns import alone
from headwater.loop.upkeep.places import INBOX

__all__ = ["home_alone"]


@contextmanager
def home_alone(settings: Settings) -> Iterator[None]:
    """Have every pipeline of a home to oneself for the length of a block.

    Raises
    ------
    BusyError
        If a process serves, trains or records there; nobody can begin to meanwhile.
    """
    with ExitStack() as held:
        for path in sorted((settings.root / INBOX).glob("*.sqlite")):
            held.enter_context(alone(path))
        yield
