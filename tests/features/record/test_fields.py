"""A request's features are accepted as the declaration says."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headwater.features.record.checks import plain_words
from headwater.features.record.fields import Fields
from headwater.spec.data.feature import Feature, RequestFeature

RANGED: list[tuple[RequestFeature, list[Any], list[Any]]] = [
    (Feature("x", float, low=0, high=1), [0, 0.0, 1, 0.5], [-0.1, 1.0000001, 2, None]),
    (Feature("x", float, low=0.5), [0.5, 1e300], [0, 0.49]),
    (Feature("x", float, high=2, nullable=True), [None, 2, -1e300], [2.1]),
    (Feature("x", int, low=-3, high=2**63 - 1), [-3, 2**63 - 1], [-4, 0.5]),
    (Feature("x", int, categories=(1, 5)), [1, 5], [2, "1"]),
    (Feature("x", str, categories=("a", "ü")), ["a", "ü"], ["b", "", None, 1]),
    (Feature("x", str, categories=("a",), nullable=True), ["a", None], ["b"]),
    (Feature("x", str, longest=2, nullable=True), ["", "üü", None], ["abc"]),
]


@pytest.mark.parametrize(("feature", "good", "bad"), RANGED)
def test_a_value_within_its_range_is_accepted_and_another_is_named(
    feature: RequestFeature, good: list[Any], bad: list[Any]
) -> None:
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(Fields((feature,), ranged=True).type).decode
    for value in good:
        assert decode(msgspec.json.encode({"x": value})).x == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError) as refused:
            decode(msgspec.json.encode({"x": value}))
        assert plain_words(refused.value, "features.").startswith("features.x: ")


@pytest.mark.parametrize("feature", [feature for feature, _, _ in RANGED])
def test_a_logged_value_may_be_outside_its_range(feature: RequestFeature) -> None:
    outside = {"float": -7.5, "int": -7, "str": "other"}[feature.dtype]
    found = msgspec.convert({"x": outside}, Fields((feature,), ranged=False).type)
    assert msgspec.structs.asdict(found) == {"x": outside}


def test_a_long_value_is_not_quoted_whole() -> None:
    kind = Fields((Feature("x", str, categories=("a",)),), ranged=True).type
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(msgspec.json.encode({"x": "long" * 10_000}), type=kind)
    text = plain_words(refused.value)
    assert text.startswith("x: it may not be 'long")
    assert len(text) < 400
