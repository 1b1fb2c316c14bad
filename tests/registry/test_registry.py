from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from tests.loop.conftest import Binder, day

from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings
from headwater.infra.store.audit import audited
from headwater.infra.store.lease import acquire
from headwater.loop.binding import Bound
from headwater.loop.training.plan import plan_update, recipe_of
from headwater.loop.training.update import learn, train
from headwater.registry.lineage import draw, lineage, walk
from headwater.registry.mlflow_store.connection import guarded
from headwater.registry.mlflow_store.housekeeping import close_leftovers, log_metrics
from headwater.registry.proof import prove, verify
from headwater.spec.errors import ConflictError, DigestError, FencedError, NotFoundError, StorageError
from headwater.spec.recipe import OffsetRange


@pytest.fixture
def line(bind: Binder) -> Bound:
    """Return a pipeline with two versions, the second of them champion."""
    bound = bind()
    for _ in range(2):
        day(bound)
        train(bound)
    return bound


def test_mlflow_shows_inputs_parameters_and_tags_of_a_version(line: Bound) -> None:
    client = line.registry.mlflow.client
    one, two = line.registry.store.versions()
    run = client.get_run(two.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["examples.start"] == "120"
    assert run.data.metrics["examples_learned"] == 120
    assert "served_roc_auc" in run.data.metrics
    assert [model.model_id for model in run.inputs.model_inputs] == [one.model_id]
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["line examples [120, 240)"]
    entry = client.get_model_version("line", "2")
    assert entry.tags["headwater.digest"] == two.digest
    assert entry.tags["headwater.parent"] == "1"


def test_numbers_are_logged_against_a_version(line: Bound) -> None:
    client = line.registry.mlflow.client
    _, two = line.registry.store.versions()
    for _ in range(2):
        log_metrics(line.registry.mlflow, two, {"window_roc_auc": 0.75}, line.clock.now(), step=3)
    (point,) = client.get_metric_history(two.run_id, "window_roc_auc")
    assert (point.value, point.step) == (0.75, 3)
    logged = client.get_logged_model(two.model_id).metrics or ()
    assert [m.value for m in logged if m.key == "window_roc_auc"] == [0.75]


def test_a_version_loads_with_plain_mlflow(line: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(line.settings.root))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    read_settings.cache_clear()
    frame = line.log.examples(0, 20)["features"].struct.unnest()
    champion = line.registry.champion()
    assert champion is not None
    loaded = mlflow.pyfunc.load_model("models:/line@champion")
    expected = line.registry.store.learner(champion).predict(frame)
    outputs = loaded.predict(pd.DataFrame(frame.to_dict(as_series=False)))
    assert outputs.to_list() == pytest.approx(expected, abs=1e-12)
    read_settings.cache_clear()


def test_plain_mlflow_refuses_a_changed_state(line: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(line.settings.root))
    read_settings.cache_clear()
    for path in Path(line.settings.storage_uri).rglob("state.bin"):
        path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(DigestError, match="bytes"):
        mlflow.pyfunc.load_model("models:/line@champion")
    read_settings.cache_clear()


def test_a_signature_does_not_hold_under_another_key() -> None:
    proof = prove(b"ours", "line", "d" * 64, b"state", b"recipe")
    verify(b"ours", proof, "line", b"state", b"recipe")
    for key, name, state, recipe in [
        (b"theirs", "line", b"state", b"recipe"),
        (b"ours", "other", b"state", b"recipe"),
        (b"ours", "line", b"State", b"recipe"),
        (b"ours", "line", b"state", b"Recipe"),
    ]:
        with pytest.raises(DigestError):
            verify(key, proof, name, state, recipe)


def test_files_of_another_version_are_refused(line: Bound) -> None:
    one, two = line.registry.store.versions()
    folders = [
        Path(
            line.registry.mlflow.client.get_logged_model(v.model_id).artifact_location.removeprefix(
                "file://"
            )
        )
        for v in (one, two)
    ]
    for name in ("state.bin", "recipe.json", "proof.json"):
        (folders[1] / "artifacts" / name).write_bytes((folders[0] / "artifacts" / name).read_bytes())
    with pytest.raises(DigestError, match="another version"):
        line.registry.store.verified_files(two, again=True)


def test_one_of_two_promotions_from_the_same_reign_wins(line: Bound) -> None:
    championship = line.registry.championship
    expected = championship.reign()
    championship.swap("1", expected=expected, by="one", reason="first")
    with pytest.raises(ConflictError, match="changed meanwhile"):
        championship.swap("2", expected=expected, by="two", reason="second")
    history = [(reign.epoch, reign.version, reign.previous) for reign in championship.history()]
    assert history == [(1, "1", None), (2, "2", "1"), (3, "1", "2")]


def test_the_audit_has_each_change_of_the_champion(line: Bound) -> None:
    registry, before = line.registry, len(audited(line.database, 1_000))
    registry.promote("1", by="ada", reason="better")
    registry.rollback(by="bob", reason="worse", quarantine=[OffsetRange(130, 140)])
    registry.promote("2", by="eve", reason="again", quarantine=[OffsetRange(5, 6)])
    with pytest.raises(ConflictError):
        registry.championship.swap("1", expected=None, by="late", reason="lost the race")
    rows = audited(line.database, 1_000)[before:]
    assert [(row.by, row.action, row.pipeline, row.detail.get("version")) for row in rows] == [
        ("ada", "promote", "line", "1"),
        ("bob", "roll back", "line", "2"),
        ("eve", "quarantine", "line", None),
    ]
    assert rows[0].detail == {"version": "1", "previous": "2", "epoch": 3, "reason": "better"}
    assert rows[1].detail["quarantined"] == [str(OffsetRange(130, 140))]
    assert audited(line.database, 1) == rows[-1:]


def test_aliases_mirror_the_row_even_after_an_interruption(line: Bound) -> None:
    registry = line.registry
    assert registry.store.aliases() == {"champion": "2", "previous": "1"}
    registry.championship.swap("1", expected=registry.championship.reign(), by="x", reason="y")
    assert registry.store.aliases()["champion"] == "2"  # killed before the mirror
    registry.heed_aliases()
    assert registry.store.aliases() == {"champion": "1", "previous": "2"}
    assert registry.championship.mirrored()


def test_an_alias_changed_from_outside_is_a_request_to_promote(line: Bound) -> None:
    line.registry.mlflow.client.set_registered_model_alias("line", "champion", "1")
    reign = line.registry.heed_aliases()
    assert reign is not None
    assert (reign.version, reign.by) == ("1", "alias")
    assert line.registry.store.aliases() == {"champion": "1", "previous": "2"}


def test_a_version_that_does_not_exist_cannot_be_promoted(line: Bound) -> None:
    with pytest.raises(NotFoundError, match="no version '9'"):
        line.registry.promote("9", by="test", reason="typo")
    assert line.registry.store.aliases()["champion"] == "2"


def test_the_error_names_a_champion_that_was_deleted_in_mlflow(line: Bound) -> None:
    line.registry.mlflow.client.delete_model_version("line", "2")
    with pytest.raises(NotFoundError, match="no version '2'"):
        line.registry.champion()
    assert line.registry.rollback(by="test", reason="deleted").version == "1"


def test_the_same_recipe_is_one_version(line: Bound) -> None:
    lease = acquire(line.database, line.clock, "train/line")
    day(line)
    champion = line.registry.champion()
    plan = plan_update(line.pipeline, champion, line.clock.now())
    recipe = recipe_of(line, plan, line.log.stop(), line.clock.now())
    _, candidate = learn(line, recipe, {})
    first = line.registry.publish(candidate, lease)
    assert line.registry.publish(candidate, lease) == first
    assert len(line.registry.store.versions()) == 3


def test_a_trainer_whose_lease_was_taken_over_publishes_nothing(
    line: Bound, monkeypatch: pytest.MonkeyPatch
) -> None:
    day(line)
    upload = mlflow.pyfunc.log_model

    def taken_over(**arguments: Any) -> object:
        acquire(line.database, line.clock, "train/line", take_over=True)
        return upload(**arguments)

    monkeypatch.setattr(mlflow.pyfunc, "log_model", taken_over)
    with pytest.raises(FencedError, match="taken over"):
        train(line)
    assert len(line.registry.store.versions()) == 2
    assert line.registry.store.aliases()["champion"] == "2"


def test_rollback_needs_an_earlier_champion(bind: Binder) -> None:
    bound = bind()
    day(bound)
    train(bound)
    with pytest.raises(NotFoundError, match="no earlier champion"):
        bound.registry.rollback(by="test", reason="no")


def test_lineage_as_tree_and_as_picture(line: Bound, tmp_path: Path) -> None:
    line.registry.rollback(by="test", reason="branch", quarantine=[OffsetRange(130, 140)])
    day(line)
    train(line)
    roots = lineage(line.registry.store.versions(), line.registry.championship.history())
    nodes = [(depth, node.version.number, node.serving) for depth, node in walk(roots)]
    assert nodes == [(0, "1", False), (1, "2", False), (1, "3", True)]
    draw(roots, tmp_path / "line.png", "line")
    assert (tmp_path / "line.png").read_bytes()[:4] == b"\x89PNG"


def test_the_signing_key_is_made_once_and_only_its_owner_reads_it(line: Bound) -> None:
    path = line.settings.root / "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert line.settings.key() == line.settings.key()


def test_runs_and_models_that_a_killed_trainer_left_open_are_closed(line: Bound) -> None:
    connection = line.registry.mlflow
    model = connection.client.create_logged_model(connection.experiment_id, name="left")
    connection.client.create_run(connection.experiment_id)
    assert close_leftovers(connection) == 2
    assert connection.client.get_logged_model(model.model_id).status == "FAILED"
    assert close_leftovers(connection) == 0


def test_no_error_of_mlflow_quotes_a_password() -> None:
    away = Settings(mlflow_uri="https://me:s3cret-word@models.example/path")
    with pytest.raises(StorageError) as caught, guarded(away):
        raise OSError("GET https://me:s3cret-word@models.example/path: no route")
    assert "s3cret" not in str(caught.value)
    assert "models.example" in str(caught.value)
