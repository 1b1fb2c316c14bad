"""Measure claims, one JSON line each: ``python -m benchmarks [claim ...] [--short]``.

The long forms take hours together: they play the whole year many times. ``--short`` runs the code of
every claim on a little of everything in a few minutes, and gives no verdict.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.claim import Outcome, say
from headwater.infra.offline import quiet

CLAIMS = {
    "replay-speed": "loop",
    "read-recent": "learning",
    "memory": "learning",
    "doors": "service",
    "raw-http": "http",
    "browser": "http",
    "import-stream": "learning",
    "due": "learning",
    "rebuild": "lineage",
    "rebuildable": "lineage",
    "bandit": "routing",
    "crash": "faults",
    "exactly-once": "faults",
    "storm": "faults",
    "restore": "stores",
    "adopt": "faults",
    "stores": "stores",
    "poison": "faults",
    "prediction-cost": "speed",
    "peers": "speed",
    "latency": "speed",
    "one-loop": "loop",
    "time-to-learn": "speed",
    "fold-identity": "lineage",
    "parity": "lineage",
    "edits": "lineage",
    "claim-latency": "speed",
    "health": "service",
    "many-pipelines": "service",
    "swap": "service",
    "switch": "service",
    "durability": "service",
    "syncs": "service",
    "fuzz": "http",
    "soak": "service",
    "demo": "loop",
    "stateful-cost": "learning",
    "honest-baseline": "learning",
    "linear-stateful": "learning",
    "state-is-real": "learning",
    "estimate": "monitoring",
    "better-than-calendar": "monitoring",
    "quiet": "monitoring",
    "reaction": "monitoring",
    "drift-cost": "monitoring",
    "attention": "monitoring",
    "weeks": "monitoring",
}
"""Every claim, the quick ones first, and its folder; there each is a module of its name."""


def measure(claim: str, *, short: bool) -> Outcome:
    """Measure one claim.

    Parameters
    ----------
    claim
        One of :data:`CLAIMS`.
    short
        Run a small form, which checks the code and not the number.
    """
    module = importlib.import_module(f"benchmarks.{CLAIMS[claim]}.{claim.replace('-', '_')}")
    outcome: Outcome = module.measure(short=short)
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the named claims, or all; the status is 1 if one does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="claim", help=", ".join(CLAIMS))
    parser.add_argument("--short", action="store_true", help="check the code, not the number")
    options = parser.parse_args(arguments)
    if unknown := set(options.claims) - set(CLAIMS):
        parser.error(f"no claim {', '.join(sorted(unknown))}; there are {', '.join(CLAIMS)}")
    quiet()
    found: dict[str, Outcome] = {}
    for claim in options.claims or CLAIMS:
        say(f"{claim}: begins")
        started_s = time.monotonic()
        outcome = measure(claim, short=options.short)
        say(f"{claim}: took {time.monotonic() - started_s:.0f} s")
        print(outcome.line(claim, short=options.short), flush=True)
        found[claim] = outcome
    if len(found) > 1 and not options.short:
        _show(found)
    return 0 if options.short or all(outcome.holds for outcome in found.values()) else 1


def _show(found: dict[str, Outcome]) -> None:
    """Show the verdicts as a table, to people: standard output has the lines."""
    table = Table("claim", "measured", "bound", "", box=box.SIMPLE_HEAD)
    for claim, outcome in found.items():
        bound = "-" if outcome.bound is None else f"{outcome.bound:g}"
        table.add_row(claim, f"{outcome.ratio:.4g}", bound, "holds" if outcome.holds else "FAILS")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    sys.exit(main())
