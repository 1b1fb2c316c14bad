"""A page elsewhere, in a real browser, has no effect on the servers of its reader's machine."""

from collections import Counter

from benchmarks.claim import Outcome, at_most, say
from benchmarks.http.attacked_servers import Target, service, stack
from benchmarks.http.attacks import EVIL, WAYS, attacked, pages
from benchmarks.http.chromium import Tab, chromium

__all__ = ["measure"]

_PAGES = 3
_SHORT_WAYS = ("form as text", "fetch without a type", "fetch as it is")
_ALL = {
    "service": tuple(way for way in WAYS if way not in {"form by name", "form in parts"}),
    "prefect": ("fetch as it is",),
    "mlflow": ("fetch as it is",),
}
"""The ways in which each server obeys at once if nothing is before it."""


def measure(*, short: bool) -> Outcome:
    """Attack the service, Prefect and MLflow from a page in Chromium, in each way that a page has.

    The page is open by another port of the same host, by another name, and by a name that was pointed at
    the server itself. It sends every operation of the service, and what makes something in Prefect and
    MLflow, with a body that the server obeys: as a form, by ``fetch`` with each of the types that need
    no leave, as a beacon, an image, a script, a frame and a socket, and by plain ``fetch``.

    The service has no key, so it is protected by its door alone, as MLflow is; Prefect has the
    operator's key, too.

    ``ratio`` is the number of rows in the stores that changed. Also, the same attacks change rows in
    each of the three if nothing is before it, in every way that it obeys at once (``undefended``).
    Prefect stores events, those of sockets too, seconds later, under a way that comes after.
    """
    ways = _SHORT_WAYS if short else WAYS
    sent, effects, undefended = 0, Counter[str](), Counter[str]()
    with pages() as elsewhere, chromium({EVIL: "127.0.0.1"}) as tab:
        for servers in (service, stack):
            with servers(door=True) as targets:
                for target in targets:
                    sent += _PAGES * len(ways) * len(target.attacks)
                    effects.update(_effects(tab, elsewhere, target, ways))
            with servers(door=False) as targets:
                for target in targets:
                    undefended.update(_effects(tab, elsewhere, target, ways))
    for what, count in (+effects).items():
        say(f"  {what}: {count}")
    obeyed = [f"{name}: {way}" for name, its in _ALL.items() for way in its if way in ways]
    return at_most(
        float(effects.total()),
        0.0,
        also=all(undefended[what] for what in obeyed),
        sent=sent,
        effects=dict(+effects),
        undefended=dict(+undefended),
    )


def _effects(tab: Tab, elsewhere: int, target: Target, ways: tuple[str, ...]) -> Counter[str]:
    """Attack a server from each page in each way; return the number of rows that changed, by way."""
    effects: Counter[str] = Counter()
    own, rebound = f"http://127.0.0.1:{target.port}", f"http://{EVIL}:{target.port}"
    for page, at in (
        (f"http://127.0.0.1:{elsewhere}/", own),
        (f"http://{EVIL}:{elsewhere}/", own),
        (f"{rebound}{target.page}", rebound),
    ):
        for way in ways:
            tab.open(page)
            target.begin()
            before = target.rows()
            attacked(tab, at, way, target.attacks)
            effects[f"{target.name}: {way}"] += len(target.rows() - before)
    before = target.rows()
    target.settle()
    effects[f"{target.name}: later"] += len(target.rows() - before)
    return effects
