"""Differences between the features of declarations, and between those and what was recorded. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import UNSET
from msgspec.structs import replace

from headwater.spec.data.feature import FeatureKind, can_become, widens
from headwater.spec.difference import ORDER, Difference, Way
from headwater.spec.errors import few

__all__ = ["feature_differences", "recorded_as", "unreadable"]


def recorded_as(feature: FeatureKind, recorded: Iterable[FeatureKind]) -> FeatureKind | None:
    """Return what records of some features have for one: that of its name, or of its newest earlier one.

    None if they have nothing for it.
    """
    by_name = {one.name: one for one in recorded}
    names = (feature.name, *(() if feature.was is UNSET else feature.was))
    return next((by_name[name] for name in names if name in by_name), None)


def unreadable(
    recorded: Iterable[Sequence[FeatureKind]], features: Sequence[FeatureKind]
) -> tuple[Difference, ...]:
    """Return the features that some records cannot be read as: they have another type, or no value.

    Parameters
    ----------
    recorded
        The features of each declaration that records were recorded under.
    features
        Those that are declared now.
    """
    found: dict[str, Difference] = {}
    for had in recorded:
        for feature in features:
            known = recorded_as(feature, had)
            if known is not None and not can_become(known, feature):
                found.update({one.field: one for one in _dtype(known, feature)})
            elif known is None and not _is_told(feature):
                added = replace(_added(feature), way="back")
                found[added.field] = added
    return tuple(found.values())


def feature_differences(
    stored: Sequence[FeatureKind], gone: Sequence[FeatureKind], declared: Sequence[FeatureKind]
) -> Iterator[Difference]:
    """Yield the differences between stored features and those that are declared now.

    Parameters
    ----------
    stored, gone, declared
        What is in force; what was before, and is gone; what is to follow.
    """
    was = {feature.name: feature for feature in stored}
    dropped = {feature.name: feature for feature in gone}
    now = {feature.name: feature for feature in declared}
    renamed = _renamed(was, now)
    for name, feature in now.items():
        before = was.get(name) or was.get(renamed.get(name, "")) or dropped.get(name)
        if before is not None:
            yield from _dtype(before, feature)
        if name in renamed:
            yield Difference(
                field=f"feature {renamed[name]!r}",
                was=repr(renamed[name]),
                now=f"called {name!r}",
                way="fresh",
            )
        elif name not in was:
            yield _added(feature, again=before is not None)
    for name, feature in was.items():
        if name not in now and name not in renamed.values():
            yield Difference(field=f"feature {name!r}", was=feature.dtype, now="gone", way="fresh")
    before_names, names = [name for name in was if name in now], [name for name in now if name in was]
    if before_names != names:
        yield Difference(field=ORDER, was=few(before_names), now=few(names), way="fresh")


def _renamed(was: Mapping[str, FeatureKind], now: Mapping[str, FeatureKind]) -> dict[str, str]:
    """Return the earlier name of each feature that is new by name, and says what it was."""
    found = {}
    for name, feature in now.items():
        if name not in was and feature.was is not UNSET:
            for old in feature.was:
                if old in was and old not in now:
                    found[name] = old
                    break
    return found


def _is_told(feature: FeatureKind) -> bool:
    """Return whether something says what a feature is in a record that has none."""
    return feature.nullable or (feature.default, feature.fill) != (UNSET, UNSET)


def _added(feature: FeatureKind, *, again: bool = False) -> Difference:
    """Judge a new feature: earlier records lack it, unless something says what it is in them."""
    told = again or _is_told(feature) or feature.was is not UNSET
    return Difference(
        field=f"feature {feature.name!r}",
        was="not there",
        now=feature.dtype if feature.nullable else f"{feature.dtype}, never null",
        way="free" if told else "back",
        hint="say what it is in records of before, which have none: nullable=True, default= a value, "
        "fill= a function, or was= the name that it had; then start a new line: headwater train "
        "PIPELINE --fresh; or take it out",
    )


def _dtype(before: FeatureKind, feature: FeatureKind) -> Iterator[Difference]:
    """Judge a type: a wider one holds what was learned, and another one needs to be converted to."""
    if before.dtype == feature.dtype:
        return
    name, other = feature.name, f"{feature.name}_{feature.dtype}"
    way: Way = "back" if feature.convert is UNSET else "fresh"
    yield Difference(
        field=f"feature {name!r}",
        was=before.dtype,
        now=feature.dtype,
        way="on" if widens(before.dtype, feature.dtype) and feature.convert is UNSET else way,
        hint=f"say how records of before are converted, convert={feature.dtype} or a function; or give "
        f"what is new a name of its own, Feature({other!r}, {feature.dtype}, nullable=True)",
    )
