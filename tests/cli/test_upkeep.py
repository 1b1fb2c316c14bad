"""Backup, restore, and another signing key, as people call them."""

import shutil
from pathlib import Path

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
