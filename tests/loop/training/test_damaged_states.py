"""A damaged state is folded again from the log; what cannot be is refused by name, and runs no code."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from tests.loop.conftest import Binder, day

from headwater.infra.settings import settings as read_settings
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.registry.version import Version
from headwater.spec.errors import DigestError, HeadwaterWarning

TRACE = "import pathlib\npathlib.Path({!r}).touch()\n"


@pytest.fixture
def line(bind: Binder) -> Bound:
    """Return a pipeline with two versions, the second of them champion, and examples to learn."""
    bound = bind()
    for _ in range(2):
        day(bound)
        train(bound)
    day(bound)
    return bound


def folder_of(bound: Bound, version: Version) -> Path:
    location = bound.registry.mlflow.client.get_logged_model(version.model_id).artifact_location
    return Path(str(location).removeprefix("file://"))


def files_of(bound: Bound, version: Version) -> Path:
    return folder_of(bound, version) / "artifacts"


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x20
    path.write_bytes(content)


@pytest.mark.parametrize("lost", [False, True], ids=["overwritten", "lost"])
def test_training_folds_a_damaged_state_again_and_puts_it_back(
    line: Bound, bind: Binder, *, lost: bool
) -> None:
    _, two = line.registry.store.versions()
    state = files_of(line, two) / "state.bin"
    state.unlink() if lost else spoil(state)
    line = bind(line.clock)  # as another process begins: it has verified nothing
    with pytest.warns(HeadwaterWarning, match="state of version 2 was damaged"):
        trained = train(line)
    assert trained.version is not None
    assert trained.version.parent == "2"
    assert line.registry.store.learner(two).digest() == two.digest
    line.registry.store.verified_files(two, again=True)  # raises if it is damaged still


def test_an_ancestor_that_is_damaged_too_is_folded_on_the_way(line: Bound, bind: Binder) -> None:
    versions = line.registry.store.versions()
    for version in versions:
        spoil(files_of(line, version) / "state.bin")
    line = bind(line.clock)  # as another process begins: it has verified nothing
    with pytest.warns(HeadwaterWarning, match="state of version 2 was damaged"):
        assert train(line).version is not None
    assert line.registry.store.learner(versions[1]).digest() == versions[1].digest


def swap(line: Bound) -> None:
    one, two = (files_of(line, version) for version in line.registry.store.versions())
    one.rename(one.with_name("aside"))
    two.rename(one)
    one.with_name("aside").rename(two)


def replace_proof(line: Bound) -> None:
    one, two = (files_of(line, version) for version in line.registry.store.versions())
    shutil.copy(one / "proof.json", two / "proof.json")


def spoil_recipe(line: Bound) -> None:
    spoil(files_of(line, line.registry.store.versions()[1]) / "recipe.json")


@pytest.mark.parametrize("damage", [swap, replace_proof, spoil_recipe], ids=lambda one: one.__name__)
def test_a_version_that_is_not_the_registered_one_is_refused_and_put_back_by_hand(
    line: Bound, bind: Binder, damage: Callable[[Bound], None], tmp_path: Path
) -> None:
    models = folder_of(line, line.registry.store.versions()[0]).parents[0].parent
    shutil.copytree(models, tmp_path / "copy")
    damage(line)
    line = bind(line.clock)  # as another process begins: it has verified nothing
    with pytest.raises(DigestError):
        train(line)
    reign = line.registry.championship.reign()
    assert reign is not None
    assert reign.version == "2"
    assert len(line.registry.store.versions()) == 2
    shutil.copytree(tmp_path / "copy", models, dirs_exist_ok=True)
    assert train(line).version is not None


def test_an_alias_moved_to_a_damaged_version_stops_no_training(line: Bound) -> None:
    one, _ = line.registry.store.versions()
    spoil(files_of(line, one) / "state.bin")
    line.registry.mlflow.client.set_registered_model_alias("line", "champion", "1")
    with pytest.warns(HeadwaterWarning, match="alias 'champion' that was moved in MLflow is refused"):
        trained = train(line)
    assert trained.version is not None
    assert trained.version.parent == "2"
    assert line.registry.store.aliases()["champion"] == "3"


@pytest.fixture
def trap(line: Bound, tmp_path: Path) -> Iterator[Path]:
    """Return the file that a malicious model makes once it runs; the champion is malicious."""
    trap = tmp_path / "it ran"
    folder = folder_of(line, line.registry.store.versions()[1])
    (folder / "evil.py").write_text(TRACE.format(str(trap)) + "def _load_pyfunc(path): return None\n")
    for name in ("pyfunc_model.py", "artifacts/model.py"):
        path = folder / name
        path.write_text(TRACE.format(str(trap)) + path.read_text())
    yield trap
    trap.unlink(missing_ok=True)


def test_a_malicious_model_s_code_is_not_run_by_headwater(line: Bound, bind: Binder, trap: Path) -> None:
    model = folder_of(line, line.registry.store.versions()[1]) / "MLmodel"
    model.write_text(model.read_text().replace("mlflow.pyfunc.loaders.code_model", "evil"))
    line = bind(line.clock)  # as another process begins: it has verified nothing
    assert train(line).version is not None
    assert not trap.exists()


def test_a_malicious_model_s_code_is_run_by_mlflow_s_own_loader(
    line: Bound, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow runs what it finds: whoever may write there may run code where it is loaded so."""
    monkeypatch.setenv("HEADWATER_HOME", str(line.settings.root))
    read_settings.cache_clear()
    mlflow.set_tracking_uri(line.settings.tracking_uri)
    mlflow.pyfunc.load_model("models:/line@champion")
    read_settings.cache_clear()
    assert trap.exists()
