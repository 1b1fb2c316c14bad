"""Backup, restore, and another signing key, as people call them."""

import io
import shutil
from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import TOY, Run, history

from headwater.infra.settings import Settings


def test_a_home_is_backed_up_and_restored(run: Run, home: Settings, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "history.parquet"))
    run("train", TOY)
    made = run("backup", "saved", "--json")
    assert made.status == 0, made.err
    assert made.json["pipelines"]["toy"]["position"] == 400
    shown = run("backup", "kept", "--with-key")
    assert "records up to" in shown.out
    assert "the signing key is in it" in shown.out
    refused = run("restore", "saved")
    assert (refused.status, "is not empty" in refused.err) == (1, True)
    shutil.rmtree(home.root)
    refused = run("restore", "saved")
    assert (refused.status, "the signing key is not in the backup" in refused.err) == (1, True)
    restored = run("restore", "kept")
    assert restored.status == 0, restored.err
    assert "next: headwater doctor" in restored.out
    assert run("rebuild", "toy", "1").status == 0


def test_the_signing_key_is_rotated(run: Run, home: Settings, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "history.parquet"))
    run("train", TOY)
    rotated = run("signing-key", "rotate")
    assert "1 states are signed with the new key" in rotated.out
    assert run("rebuild", "toy", "1").status == 0
    (home.root / "signing.key").unlink()
    refused = run("rebuild", "toy", "1")
    assert "headwater signing-key renew" in refused.err
    renewed = run("signing-key", "renew", "toy", "--yes", "--json")
    assert renewed.json == {"folded": ["1"], "held": [], "left": {}}
    assert run("rebuild", "toy", "1").status == 0


def test_a_pipeline_is_deleted_if_that_is_confirmed(
    run: Run, home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = history(tmp_path / "history.parquet")
    run("import", TOY, table)
    run("train", TOY)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = run("pipelines", "delete", "toy")
    assert asked.status == 1
    assert run("rebuild", "toy", "1").status == 0
    deleted = run("pipelines", "delete", "toy", "--yes")
    assert "toy is deleted, with 1 versions" in deleted.out
    assert run("versions", "toy").status == 1
    assert "400 records added" in run("import", TOY, table).out


def test_a_moved_home_is_followed(run: Run, home: Settings, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "history.parquet"))
    run("train", TOY)
    there = tmp_path / "there"
    shutil.move(home.root, there)
    refused = run("rebuild", "toy", "1", HEADWATER_HOME=str(there))
    assert "headwater moved" in refused.err
    followed = run("moved", HEADWATER_HOME=str(there))
    assert f"states are at file://{there}/storage/mlflow" in followed.out
    assert run("rebuild", "toy", "1", HEADWATER_HOME=str(there)).status == 0


def test_another_name_goes_on_with_what_was_recorded(run: Run, home: Settings, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "history.parquet"))
    run("train", TOY)
    (tmp_path / "new.py").write_text(
        "from msgspec.structs import replace\nfrom tests.cli.toys import toy\n"
        "renamed = replace(toy, name='renamed')\n"
    )
    run("examples", TOY, "--out", "toy.parquet")
    imported = run("import", "new.py:renamed", "toy.parquet", "--id", "prediction_id")
    assert imported.status == 0, imported.err
    trained = run("train", "new.py:renamed")
    assert trained.status == 0, trained.err
    run("examples", "new.py:renamed", "--out", "renamed.parquet")
    columns = ("prediction_id", "label", "x", "y", "served_at", "known_at")
    old, new = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("toy", "renamed"))
    assert new.select(columns).equals(old.select(columns))
