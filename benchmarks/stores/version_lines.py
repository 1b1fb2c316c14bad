"""Lines in which the files of versions, or what is published of them, are changed."""

from collections.abc import Callable

from benchmarks.stores.course import Course, Line
from benchmarks.stores.scene import await_true
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.storage import Storage
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.serving.published.published_models import PublishedModels
from headwater.spec.errors import DigestError, HeadwaterError

__all__ = ["LINES"]

_ALL = ("SQLite", "S3")
_Files = dict[str, dict[str, bytes]]


def _files_of(bound: Bound, storage: Storage) -> _Files:
    """Return the files of the first two versions, by version and path below the storage."""
    found: _Files = {}
    for version in bound.registry.store.versions():
        model = bound.registry.mlflow.client.get_logged_model(version.model_id)
        folder = str(model.artifact_location).removeprefix("file://")
        folder = folder.removeprefix(f"{storage.root}/") + "/artifacts"
        names = storage.names(*folder.split("/"))
        found[version.number] = {
            f"{folder}/{name}": storage.read(*folder.split("/"), name) for name in names
        }
    return found


def _write(storage: Storage, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        storage.write(content, *path.split("/"))


def _swapped(one: dict[str, bytes], two: dict[str, bytes]) -> dict[str, bytes]:
    contents = {path.rpartition("/")[2]: content for path, content in one.items()}
    return {path: contents[path.rpartition("/")[2]] for path in two}


def _proof(one: dict[str, bytes], two: dict[str, bytes]) -> dict[str, bytes]:
    return {p: content for p, content in _swapped(one, two).items() if p.endswith("/proof.json")}


def _refused_until_put_back(
    change: Callable[[dict[str, bytes], dict[str, bytes]], dict[str, bytes]],
) -> Callable[[Course], None]:
    """Return a course that changes the champion's files, and puts them back."""

    def run(course: Course) -> None:
        scene, storage = course.scene, open_storage(course.scene.settings)
        with scene.bound() as bound:
            files = _files_of(bound, storage)
            reign = bound.registry.championship.reign()
            assert reign is not None
            other = next(number for number in files if number != reign.version)
            _write(storage, change(files[other], files[reign.version]))
            _write(storage, change(files[reign.version], files[other]))
        scene.answers_again()  # it serves what it has

        def trains() -> None:
            with scene.bound() as bound:
                train(bound)

        course.refused(trains, DigestError)
        for of_version in files.values():
            _write(storage, of_version)
        scene.answers_again()

    return run


def _damaged_state(course: Course) -> None:
    """Damage the state of a version that does not serve."""
    scene, storage = course.scene, open_storage(course.scene.settings)
    with scene.bound() as bound:
        files = _files_of(bound, storage)
        serving = bound.registry.championship.reign()
        assert serving is not None
        other = next(number for number in files if number != serving.version)
        states = {path: content for path, content in files[other].items() if path.endswith("state.bin")}
        _write(storage, {path: content[:-1] for path, content in states.items()})
        course.expect(train(bound).version is not None, "training does not go on")

        def promoted() -> None:
            bound.registry.promote(other, by="benchmark", reason="it is damaged")

        course.refused(promoted, HeadwaterError, "not those that were registered")


def _serving_file(course: Course) -> None:
    scene = course.scene
    with scene.bound() as bound:
        live = PublishedModels(bound.pipeline, scene.settings)
    content = live.path.read_bytes()
    live.path.write_bytes(content.replace(b'"version":"', b'"version":"9'))

    def anew() -> bool:
        try:
            return live.read() is not None
        except HeadwaterError:
            return False

    await_true(anew, lambda: "serving.json is not published anew")
    scene.answers_again()


LINES = (
    Line(
        "the files of two versions are swapped",
        "refused by name, what serves stays, and goes on once they are put back",
        _refused_until_put_back(_swapped),
        _ALL,
    ),
    Line(
        "a proof is replaced",
        "refused by name, what serves stays, and goes on once it is put back",
        _refused_until_put_back(_proof),
        _ALL,
    ),
    Line(
        "the state of a version that does not serve is damaged",
        "training goes on; promoting it is refused by name",
        _damaged_state,
        _ALL,
    ),
    Line("serving.json is edited", "workers serve on, the keeper publishes it anew", _serving_file),
)
