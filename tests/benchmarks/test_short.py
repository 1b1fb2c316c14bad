"""The short form of every claim runs, and gives its line: the code is checked, not the number."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import CLAIMS, main

_ROOT = Path(__file__).parents[2]
_PARTS = {
    "__main__",
    "bad_models",
    "claim",
    "faults/crashing",
    "faults/false_stops",
    "faults/flowing",
    "faults/pieces",
    "faults/poison_doors",
    "faults/poisoned_pipeline",
    "faults/poisons",
    "faults/postgres_server",
    "http/attacked_servers",
    "http/attacks",
    "http/chromium",
    "http/raw_bodies",
    "http/raw_cases",
    "imported",
    "learning/bulk",
    "learning/due_cost",
    "learning/due_streams",
    "learning/year",
    "lineage/drawn_edits",
    "lineage/edited_models",
    "lineage/found_estimators",
    "models",
    "monitoring/preset",
    "monitoring/shifts",
    "routing/trials",
    "service/bad_pipelines",
    "service/in_thread",
    "service/load",
    "service/serving",
    "service/serving_toy",
    "speed/peer_servers",
    "stores/backends",
    "stores/course",
    "stores/damaged",
    "stores/disk_lines",
    "stores/growing",
    "stores/lined_pipeline",
    "stores/machine_lines",
    "stores/scene",
    "stores/small_disk",
    "stores/version_lines",
}
_PEERS = "speed/peer_setups/"
_ELSEWHERE = {"peers", "browser", "switch", "many-pipelines"}
_HERE = tuple(claim for claim in CLAIMS if claim not in _ELSEWHERE)
"""What runs on what is installed, and does more than start services.

`peers` installs three servers first, `browser` needs Chromium; `switch` and `many-pipelines` start
services for a minute or two, as ``tests/system`` does.
"""


@pytest.fixture(scope="module")
def lines() -> dict[str, dict[str, Any]]:
    """Run the claims in two processes at once: half of the time they wait."""
    with ThreadPoolExecutor(2) as pool:
        found = [line for part in pool.map(_run, (_HERE[::2], _HERE[1::2])) for line in part]
    return {line["claim"]: line for line in found}


def _run(claims: Sequence[str]) -> list[dict[str, Any]]:
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks", *claims, "--short"],
        cwd=_ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads(line) for line in finished.stdout.splitlines()]


@pytest.mark.system
@pytest.mark.parametrize("claim", _HERE)
def test_short_form(claim: str, lines: dict[str, dict[str, Any]]) -> None:
    line = lines[claim]
    assert math.isfinite(line["ratio"])
    assert line["bound"] is None or line["bound"] >= 0
    assert line["short"] is True
    assert "holds" not in line


def test_one_file_a_claim() -> None:
    root = _ROOT / "benchmarks"
    files = {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.py")}
    files = {name for name in files if not name.startswith(_PEERS) and not name.endswith("__init__")}
    assert files - _PARTS == {f"{folder}/{claim.replace('-', '_')}" for claim, folder in CLAIMS.items()}


def test_unknown_claim(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["replay-sped"])
    assert refused.value.code == 2
    assert "no claim replay-sped; there are replay-speed" in capsys.readouterr().err
