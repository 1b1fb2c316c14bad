import copy
import pickle

import pytest

from headwater.spec import errors
from headwater.spec.errors import HeadwaterError, HeadwaterWarning, StorageError, few

TREE = sorted(
    (found for name in errors.__all__ if isinstance(found := getattr(errors, name), type)),
    key=lambda error: error.__name__,
)


@pytest.mark.parametrize("error", TREE)
def test_each_error_is_ours_and_drawn_in_the_tree(error: type[HeadwaterError]) -> None:
    assert issubclass(error, HeadwaterError | HeadwaterWarning)
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", TREE)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_crosses_processes_whole(error: type[HeadwaterError], again: object) -> None:
    found = again(error("no bucket", hint="make it"))  # type: ignore[operator] # one of the two
    assert type(found) is error
    assert (found.what, found.hint) == ("no bucket", "make it")
    assert str(found) == "no bucket. Next: make it."


def test_an_error_without_a_hint_has_one_sentence() -> None:
    assert str(StorageError("gone")) == "gone."


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4 and 1 more")],
)
def test_few_names_five_and_counts_the_rest(count: int, text: str) -> None:
    assert few(range(count)) == text
