"""The limits of values, the same at every door: the size of a number, the characters of a text.

The doors check by these rules, and learners by the same bound, so that what is recorded can be learned.
"""

import re

from headwater.spec.errors import SchemaError

__all__ = [
    "CONTROLS",
    "LARGEST",
    "LONGEST_CLASS",
    "LONGEST_NAME",
    "check_name",
    "is_sound",
    "misfit_of_class",
    "misfit_of_name",
    "misfit_of_text",
]

LARGEST = 1e38
"""Numbers beyond this are refused, in features, labels and outputs, at every door and by every learner.

Trees of scikit-learn and LightGBM's labels have 32 bits, which end at 3.4e38: the difference of two
numbers within this still fits. Squares and fourth powers, which scalers and Hoeffding trees take, fit 64
bits.
"""

LONGEST_NAME = 200
"""How many characters an id, a key or another name may have."""

CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
"""Control characters (Unicode's Cc) and separators of lines, for a character class of a pattern."""

LONGEST_CLASS = 10_000
"""How many characters a class may have."""

_WRONG_IN_NAME = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


def is_sound(number: float) -> bool:
    """Return whether a number is finite, and not beyond :data:`LARGEST`.

    >>> is_sound(-1e38), is_sound(1.01e38), is_sound(float("nan")), is_sound(10**400)
    (True, False, False, False)
    """
    return -LARGEST <= number <= LARGEST


def misfit_of_name(text: object, most: int = LONGEST_NAME) -> str | None:
    r"""Return why a text cannot be an id, a key, a class or another name; None if it can.

    A name is printed, logged, and a key of tables: it has no control characters, no separators of lines,
    and no half of a surrogate pair, which UTF-8 cannot hold. Other characters are the caller's own.

    Parameters
    ----------
    text
        What was given.
    most
        How many characters it may have.

    Examples
    --------
    >>> misfit_of_name("order-17 \N{SNOWMAN}"), misfit_of_name("a\tb")
    (None, "holds the control character '\\t'")
    """
    if type(text) is str and 0 < len(text) <= most and text.isprintable():
        return None  # nearly every one
    if not isinstance(text, str):
        return "is no text"
    if not 0 < len(text) <= most:
        return f"has {len(text)} characters, and not 1 to {most}"
    return _wrong(_WRONG_IN_NAME.search(text))


def misfit_of_class(text: object) -> str | None:
    r"""Return why a text cannot be a class, empty or a name of up to 10,000 characters; None if it can.

    >>> misfit_of_class("red\n"), misfit_of_class("")
    ("holds the control character '\\n'", None)
    """
    return None if text == "" else misfit_of_name(text, LONGEST_CLASS)


def check_name(text: object, field: str, most: int = LONGEST_NAME) -> None:
    """Check an id, a key or another name.

    Raises
    ------
    SchemaError
        If it is none; the text names the field.
    """
    why = misfit_of_name(text, most)
    if why is not None:
        raise SchemaError(
            f"{field}={repr(text)[: LONGEST_NAME + 2]} {why}",
            hint=f"write a text of 1 to {most} characters, none of them a control character",
        )


def misfit_of_text(text: str) -> str | None:
    r"""Return why a text cannot be the value of a feature; None if it can.

    What people wrote has tabs, line ends, emoji and any script, and is kept as it is. Only two things no
    store holds: NUL, at which PostgreSQL and C end a text, and half of a surrogate pair.

    >>> misfit_of_text("dear all,\r\n\tno\x1b[0m"), misfit_of_text("a\0b"), misfit_of_text("\ud800")
    (None, "holds the control character '\\x00'", "holds '\\ud800', half of a surrogate pair")
    """
    if "\0" in text:
        return r"holds the control character '\x00'"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!r}, half of a surrogate pair"
    return None


def _wrong(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    if "\ud800" <= match[0] <= "\udfff":
        return f"holds {match[0]!r}, half of a surrogate pair"
    return f"holds the control character {match[0]!r}"
