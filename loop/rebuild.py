"""Rebuild a version from its recipe, in another process, and compare digests.

The other process has its own hash seed, imports nothing that the caller imported, and takes the
model's code from the recipe. Run by hand: ``python -m headwater.loop.rebuild PIPELINE VERSION``.
"""

import os
import subprocess
import sys

import msgspec

from headwater.features.log import FeatureLog
from headwater.features.read.repository import find
from headwater.infra.settings import Settings, settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.learners.learner import Learner
from headwater.loop.training.fold import fold
from headwater.registry.mlflow_store.connection import MlflowConnection
from headwater.registry.mlflow_store.versions import VersionStore
from headwater.registry.restore import factory_of, library_versions
from headwater.registry.version import Version
from headwater.spec.data.feature import requested
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import DigestError, HeadwaterError, NotRebuildableError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import Recipe
from headwater.spec.updating.update import Stateless

__all__ = [
    "RebuildResult",
    "RebuiltVersion",
    "check_libraries",
    "declared_by",
    "rebuild",
    "rebuild_here",
]


class RebuiltVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A state that was folded again.

    Parameters
    ----------
    number
        Of the version.
    digest, rebuilt_digest
        The registered digest, and that of the rebuilt state.
    learned
        How many examples it learned.
    """

    number: str
    digest: str
    rebuilt_digest: str
    learned: int

    @property
    def equal(self) -> bool:
        """Whether the digests are the same."""
        return self.digest == self.rebuilt_digest


class RebuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a rebuild.

    Parameters
    ----------
    pipeline
        Whose version.
    versions
        Every state that was folded, oldest first; the last is of the requested version.
    process_id
        Of the process that folded.
    """

    pipeline: str
    versions: tuple[RebuiltVersion, ...]
    process_id: int

    @property
    def equal(self) -> bool:
        """Whether every digest is the same."""
        return all(version.equal for version in self.versions)


class _RebuildError(msgspec.Struct):
    kind: str
    what: str
    hint: str


def rebuild(pipeline: str, number: str, settings: Settings, *, from_root: bool = False) -> RebuildResult:
    """Fold a version's recipe again in a process of its own.

    Parameters
    ----------
    pipeline, number
        Which version.
    settings
        Where the stores are.
    from_root
        Fold every ancestor from the root of the line, without any stored state. Otherwise fold only the
        version itself, from its parent's stored state.

    Raises
    ------
    NotRebuildableError
        If libraries or code are not those of the recipe.
    NotFoundError, DigestError, TableError, StorageError
        If a version, recipe or example is missing or damaged, or a store is away.
    """
    command = [sys.executable, "-m", "headwater.loop.rebuild", pipeline, number]
    finished = subprocess.run(  # noqa: S603 - our own module
        [*command, "--from-root"] if from_root else command,
        env=_environment(settings),
        capture_output=True,
        check=False,
    )
    lines = finished.stdout.splitlines()
    if finished.returncode == 0 and lines:
        return msgspec.json.decode(lines[-1], type=RebuildResult)
    if finished.returncode == 1 and lines:
        raise _error_of(msgspec.json.decode(lines[-1], type=_RebuildError))
    tail = finished.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise NotRebuildableError(
        f"the rebuilding process ended with status {finished.returncode}: {tail[0]}",
        hint=f"run it by hand: {' '.join(command[1:])}",
    )


def rebuild_here(
    pipeline: str, number: str, settings: Settings, *, from_root: bool = False
) -> RebuildResult:
    """Fold a version's recipe again in this process; see :func:`rebuild`."""
    database = Database(settings.operational_url)
    log: FeatureLog | None = None
    learner: Learner | None = None
    rebuilt: list[RebuiltVersion] = []
    try:
        identity = identity_of(database, find(database, pipeline, settings))
        store = VersionStore(MlflowConnection(identity, settings))
        target = store.get(number)
        line = _line(store, target) if from_root else [target]
        for version in line:
            recipe = store.recipe(version)
            check_libraries(version, recipe)
            log = log or FeatureLog(declared_by(recipe), settings, database=database)
            if recipe.parent is None:
                learner = None
            elif learner is None:
                learner = store.learner(store.get(recipe.parent))
            learner, learned = fold(recipe, log, learner)
            rebuilt.append(
                RebuiltVersion(
                    number=version.number,
                    digest=version.digest,
                    rebuilt_digest=learner.digest(),
                    learned=learned,
                )
            )
    finally:
        if log is not None:
            log.close()
        database.close()
    return RebuildResult(pipeline=pipeline, versions=tuple(rebuilt), process_id=os.getpid())


def _line(store: VersionStore, version: Version) -> list[Version]:
    """List a version's ancestors from its root, and itself."""
    by_number = {version.number: version for version in store.versions()}
    line = [version]
    while (parent := line[0].parent) is not None:
        line.insert(0, by_number.get(parent) or store.get(parent))
    return line


def check_libraries(version: Version, recipe: Recipe) -> None:
    """Refuse a recipe that is not the version's, or that other libraries computed.

    Raises
    ------
    DigestError, NotRebuildableError
        If so.
    """
    if recipe.id != version.recipe_id:
        raise DigestError(
            f"the recipe of version {version.number} is not the one that was registered",
            hint="roll back to a version whose recipe holds",
        )
    here = library_versions(recipe.learner.adapter)
    other = [
        f"{name} {recorded} (here {here.get(name)})"
        for name, recorded in recipe.libraries.items()
        if here.get(name) != recorded
    ]
    if other:
        raise NotRebuildableError(
            f"version {version.number} was computed by {', '.join(other)}",
            hint="rebuild it in an environment with those versions",
        )


def declared_by(recipe: Recipe) -> Pipeline:
    """Make a pipeline that suffices to read its log, in which a feature is the served value."""
    return Pipeline(
        name=recipe.pipeline,
        task=recipe.task,
        features=tuple(map(requested, recipe.features)),
        label=LabelRule(wait="1d"),
        model=factory_of(recipe.learner),
        update=Stateless(),
    )


def _environment(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables, and a hash seed other than ours."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_KILL")}
    for name, value in settings.model_dump().items():
        if value is not None:
            secret = getattr(value, "get_secret_value", None)
            variables[f"HEADWATER_{name.upper()}"] = secret() if secret else str(value)
    variables["HEADWATER_HOME"] = str(settings.root)
    variables["PYTHONHASHSEED"] = "4242" if os.environ.get("PYTHONHASHSEED") != "4242" else "2424"
    return variables


def _error_of(problem: _RebuildError) -> HeadwaterError:
    from headwater.spec import errors  # noqa: PLC0415 - only on failure

    kind = getattr(errors, problem.kind, HeadwaterError)
    error = kind(problem.what, hint=problem.hint)
    return error if isinstance(error, HeadwaterError) else HeadwaterError(problem.what, problem.hint)


def main(arguments: list[str]) -> int:
    """Rebuild, and print the result as one line of JSON; on an error, print that and return 1."""
    pipeline, number, *options = arguments
    try:
        result = rebuild_here(pipeline, number, settings(), from_root="--from-root" in options)
    except HeadwaterError as error:
        problem = _RebuildError(type(error).__name__, error.what, error.hint)
        sys.stdout.write(msgspec.json.encode(problem).decode() + "\n")
        return 1
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
