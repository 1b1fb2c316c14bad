"""The declaration by which a version answers: the service's own if it fits, or what it learned. Pure.

A version takes features by name. So it answers each request of a declaration that has all its features,
with the types that it has learned; what is declared besides must be nullable, since no record of before
has it.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from headwater.spec.data.feature import BatchFeature, FeatureKind, can_become, widens
from headwater.spec.declaration import Declaration, declaration_of, differences, refusal
from headwater.spec.difference import Difference
from headwater.spec.errors import ChangedError, few
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import Recipe

__all__ = ["answering", "check_answers", "check_servable", "feature_types", "unanswered"]


def unanswered(
    learned: Sequence[FeatureKind], pipeline: Pipeline, recorded: Sequence[FeatureKind] = ()
) -> tuple[Difference, ...]:
    """Return the differences for which a version cannot answer the requests that a pipeline declares.

    Parameters
    ----------
    learned
        The features that the version has learned.
    pipeline
        As declared.
    recorded
        The features that the log ever had: each must be able to become what is declared.

    Returns
    -------
    tuple of Difference
        A feature of another type, added and never null, or gone; the hardest first.
    """
    types = {feature.name: feature for feature in pipeline.features}
    retyped = tuple(
        one for one in recorded if one.name in types and not can_become(one, types[one.name])
    )
    label = pipeline.label.bare
    before = Declaration(task=pipeline.task, features=tuple(learned), label=label, dropped=retyped)
    found = differences(before, declaration_of(pipeline))
    gone = {f"feature {feature.name!r}" for feature in learned if feature.name not in types}
    other = {
        f"feature {feature.name!r}"
        for feature in learned
        if feature.name in types and not _takes(feature, types[feature.name])
    }
    hard = tuple(change for change in found if change.way == "back" or change.field in other)
    return hard + tuple(change for change in found if change not in hard and change.field in gone)


def _takes(learned: FeatureKind, declared: FeatureKind) -> bool:
    """Return whether what is declared can be given to a version as what it has learned."""
    return learned.dtype == declared.dtype or widens(learned.dtype, declared.dtype)


def _check_task(learned: Recipe, pipeline: Pipeline, version: str) -> None:
    """Check that a version has learned the pipeline's task: there are labels for no other.

    Raises
    ------
    ChangedError
        If it has not.
    """
    if learned.task != pipeline.task:
        before = Declaration(task=learned.task, features=pipeline.features, label=pipeline.label)
        found = differences(before, declaration_of(pipeline))
        raise refusal(pipeline.name, f"version {version}", found)


def check_answers(
    learned: Recipe, pipeline: Pipeline, version: str, recorded: Sequence[FeatureKind] = ()
) -> None:
    """Check that a version can answer every request that a pipeline accepts.

    Parameters
    ----------
    learned, version
        The recipe of the version, and its number.
    pipeline, recorded
        As for :func:`unanswered`.

    Raises
    ------
    ChangedError
        If it learned another task, or features for which it cannot.
    """
    _check_task(learned, pipeline, version)
    if changes := unanswered(learned.features, pipeline, recorded):
        raise refusal(pipeline.name, f"version {version}", changes)


def check_servable(
    learned: Recipe, pipeline: Pipeline, version: str, recorded: Sequence[FeatureKind] = ()
) -> None:
    """Check that a service can answer with a version, by what is declared or by what it has learned.

    Parameters
    ----------
    learned, version
        The recipe of the version, and its number.
    pipeline, recorded
        As for :func:`unanswered`.

    Raises
    ------
    ChangedError
        If it learned another task, or needs a table that is not declared any more.
    """
    _check_task(learned, pipeline, version)
    if unanswered(learned.features, pipeline, recorded):
        answering(pipeline, learned.features, version)


def answering(pipeline: Pipeline, learned: Sequence[FeatureKind], version: str) -> Pipeline:
    """Return the declaration by which a version answers that cannot answer by its pipeline's.

    It has the features that the version has learned. Those that are declared with the same type are as
    they are declared, with their ranges and categories; all but features and tables is as declared.

    Parameters
    ----------
    pipeline
        As declared.
    learned, version
        The features that the version has learned, and its number.

    Raises
    ------
    ChangedError
        If it needs a table that is not declared any more.
    """
    declared = {feature.name: feature for feature in pipeline.features}
    features = tuple(_alike(feature, declared.get(feature.name)) for feature in learned)
    used = {feature.table for feature in features if isinstance(feature, BatchFeature)}
    if lacking := used.difference(table.name for table in pipeline.tables):
        raise ChangedError(
            f"version {version} of {pipeline.name!r} looks features up in {few(sorted(lacking))}, which "
            "is not declared any more",
            hint="declare the table until a version has learned the other features",
        )
    return replace(
        pipeline,
        features=features,
        tables=tuple(table for table in pipeline.tables if table.name in used),
        monitoring=replace(pipeline.monitoring, slices=()),
    )


def feature_types(features: Sequence[FeatureKind]) -> dict[str, str]:
    """Return the type of each feature by name, in order, as people are shown them."""
    return {feature.name: feature.dtype for feature in features}


def _alike(learned: FeatureKind, declared: FeatureKind | None) -> FeatureKind:
    return learned if declared is None or declared.dtype != learned.dtype else declared
