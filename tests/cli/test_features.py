"""Batch features from the command line."""

from pathlib import Path

import polars as pl
from tests.cli.conftest import TOY, TOYS, Run

LOOKING = f"{TOYS}:looking"


def test_tables_are_materialised_and_shown(run: Run, tmp_path: Path) -> None:
    assert "never" in run("features", "show", LOOKING).out
    gone = run("features", "materialise", LOOKING)
    assert (gone.status, "no table at spending.parquet" in gone.err) == (1, True)
    pl.DataFrame({"customer": ["a", "b"], "spent": [1.0, 2.0]}).write_parquet("spending.parquet")
    result = run("features", "materialise", LOOKING).out
    assert result == "spending: 2 rows, materialisation 1\n"
    (made,) = run("features", "materialise", LOOKING, "--table", "spending", "--json").json
    assert (made["number"], made["rows"], made["source"]) == (2, 2, "spending.parquet")
    (shown,) = run("features", "show", LOOKING, "--json").json
    assert shown["newest"] == made
    assert shown["age_s"] >= 0.0


def test_an_unknown_table_is_refused_with_a_hint(run: Run) -> None:
    unknown = run("features", "materialise", LOOKING, "--table", "orders")
    assert (unknown.status, "it has spending" in unknown.err) == (1, True)
    without = run("features", "show", TOY)
    assert (without.status, "looks nothing up" in without.err) == (1, True)
