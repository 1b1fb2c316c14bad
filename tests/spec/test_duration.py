from datetime import timedelta

import pytest

from headwater.spec.duration import duration
from headwater.spec.errors import DeclarationError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("36h", timedelta(hours=36)),
        ("90d", timedelta(days=90)),
        ("2w", timedelta(days=14)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, wanted: timedelta) -> None:
    assert duration(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "90",
        "0d",
        "-1d",
        "+1d",
        "01d",
        "1.5h",
        "1 d",
        " 1d",
        "1d\n",
        "1D",
        "1y",
        "1d2h",
        "\N{ARABIC-INDIC DIGIT ONE}d",
    ],
)
def test_any_other_text_is_refused_with_its_field_and_the_form(text: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        duration(text, "wait")
    assert refused.value.what.startswith(f"wait={text!r} ")
    assert "'90d'" in refused.value.hint


@pytest.mark.parametrize("value", [None, 90, timedelta(days=1), b"90d"])
def test_only_text_is_a_duration(value: object) -> None:
    with pytest.raises(DeclarationError, match="not a duration"):
        duration(value)  # type: ignore[arg-type] # on purpose
