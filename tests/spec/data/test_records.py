from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headwater.spec.data.records import Label, Prediction, utc
from headwater.spec.errors import SchemaError

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
NAIVE = NOON.replace(tzinfo=None)


def predict(**changed: Any) -> Prediction:
    parts: dict[str, Any] = {"id": "a", "features": {"x": 1.0}, "output": 0.5, "served_at": NOON}
    return Prediction(**(parts | changed))


def tell(**changed: Any) -> Label:
    return Label(**({"prediction_id": "a", "value": True, "known_at": NOON} | changed))


@pytest.mark.parametrize(
    "moment", [NAIVE, date(2024, 1, 1), "2024-01-01T12:00:00Z", 1_704_110_400, None]
)
def test_a_time_without_a_zone_is_refused(moment: object) -> None:
    with pytest.raises(SchemaError, match=r"served_at=.*zone") as refused:
        predict(served_at=moment)
    assert "tzinfo=UTC" in refused.value.hint
    with pytest.raises(SchemaError, match=r"known_at=.*zone"):
        tell(known_at=moment)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-5)), ZoneInfo("Asia/Kolkata")])
def test_any_zone_is_the_same_instant(zone: Any) -> None:
    found = utc(NOON.astimezone(zone), "served_at")
    assert found == NOON
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["", "x" * 201, 7, None, b"a"])
def test_an_id_is_text_of_1_to_200_characters(text: object) -> None:
    for field, make in {"id": predict, "prediction_id": tell}.items():
        with pytest.raises(SchemaError, match=f"^{field}=") as refused:
            make(**{field: text})
        assert "1 to 200" in refused.value.hint


@pytest.mark.parametrize("text", ["", "x" * 201, 7])
def test_a_key_is_an_id_or_none(text: object) -> None:
    assert tell(key=None).key is None
    with pytest.raises(SchemaError, match=r"^key="):
        tell(key=text)


def test_an_id_of_200_characters_is_accepted() -> None:
    assert len(predict(id="x" * 200).id) == 200


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.1, float("nan"), float("inf"), "x", None])
def test_a_propensity_is_a_probability_above_zero(propensity: Any) -> None:
    with pytest.raises(SchemaError, match="propensity") as refused:
        predict(propensity=propensity)
    assert "1.0" in refused.value.hint


def test_records_do_not_share_mutable_defaults() -> None:
    one, other = predict(), predict()
    one.entity["customer"] = "c-17"
    assert other.entity == {}
