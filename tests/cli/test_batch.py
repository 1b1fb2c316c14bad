"""``headwater batch``: score a table, and see how much of it is read."""

from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import TOY, TOYS, Run, history

SCORED = f"{TOYS}:scored"


@pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow")  # hints on log_model's arguments
def test_a_table_is_scored_and_its_runs_are_listed(run: Run, tmp_path: Path) -> None:
    result = run("batch", "predict", TOY)
    assert (result.status, "scores no table" in result.err) == (1, True)
    run("import", SCORED, history(tmp_path / "history.parquet"))
    assert "no runs yet" in run("batch", "status", SCORED).out
    run("train", SCORED)
    result = run("batch", "predict", SCORED, "--json")
    assert (result.status, "no table at people.parquet" in result.json["what"]) == (1, True)
    people = pl.DataFrame({"person": ["ada", "bob"], "x": [1.0, 0.0], "y": [2.0, 3.0]})
    people.write_parquet(tmp_path / "people.parquet")
    made = run("batch", "predict", SCORED, "--json").json
    assert (made["state"], made["rows"], made["version"]) == ("published", 2, "1")
    assert "2 predictions of version 1" in run("batch", "predict", SCORED).out
    listed = run("batch", "status", SCORED)
    assert made["id"] in listed.out
    assert "0.0%" in listed.out
    (last,) = run("batch", "status", "toy", "--last", "1", "--json").json
    assert (last["number"], last["read"]) == (2, 0)
