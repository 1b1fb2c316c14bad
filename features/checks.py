"""Checks of what is recorded, before anything is stored."""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any, get_args

import msgspec

from headwater.features.fields import Fields
from headwater.spec.errors import NonFiniteError, SchemaError
from headwater.spec.pipeline import Pipeline
from headwater.spec.records import FeatureValue, Label, Output, Prediction, Role, Source

__all__ = ["Checks", "plain_words"]

_LONGEST = 300  # what is wrong may quote a value
_ROLES: tuple[str, ...] = get_args(Role)
_SOURCES: tuple[str, ...] = get_args(Source)
_LABEL_TYPES: dict[str, tuple[type, ...]] = {
    "binary": (bool,),
    "multiclass": (str,),
    "regression": (float, int),
}


class Checks:
    """What a pipeline's predictions and labels must look like.

    Parameters
    ----------
    pipeline
        Whose schema they must fit.

    Attributes
    ----------
    logged, asked
        The features that are logged, and those that arrive with a call: the same ones where none is
        looked up and none declares a range.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._task = pipeline.task
        self._names = pipeline.feature_names
        asked = pipeline.request_features
        self.logged = Fields(pipeline.features, ranged=False)
        plain = len(asked) == len(pipeline.features) and not any(f.is_ranged for f in asked)
        self.asked = self.logged if plain else Fields(asked, ranged=True)

    def features(self, prediction_id: str, features: Mapping[str, FeatureValue]) -> msgspec.Struct:
        """Check one prediction's features.

        Returns
        -------
        msgspec.Struct
            The features in an order of their own, so that equal ones are written alike.

        Raises
        ------
        SchemaError
            If a feature is missing, unknown or of another type.
        NonFiniteError
            If a number is NaN or infinite.
        """
        try:
            fitting = msgspec.convert(features, self.logged.type)
        except msgspec.ValidationError as error:
            raise SchemaError(
                f"prediction {prediction_id!r}: {plain_words(error)}",
                hint=f"send exactly the features {', '.join(self._names)}",
            ) from error
        self.logged.fit(prediction_id, fitting)
        return fitting

    def output(self, prediction_id: str, output: Output) -> None:
        """Check one prediction's output.

        Raises
        ------
        SchemaError
            If it is not of the task's form.
        NonFiniteError
            If it is NaN or infinite.
        """
        if type(output) is float and self._task != "multiclass" and isfinite(output):
            return
        if self._task == "multiclass":
            fits = isinstance(output, dict) and all(
                isinstance(name, str) and isinstance(p, float | int) for name, p in output.items()
            )
            numbers: list[Any] = list(output.values()) if isinstance(output, dict) else []
        else:
            fits = isinstance(output, float | int) and not isinstance(output, bool)
            numbers = [output]
        if not fits:
            raise SchemaError(
                f"prediction {prediction_id!r}: output {output!r} is not one of a {self._task} task",
                hint="send a probability by class" if self._task == "multiclass" else "send one number",
            )
        if not all(map(_is_finite, numbers)):
            raise NonFiniteError(
                f"prediction {prediction_id!r}: an output is not finite",
                hint="check the model that made it",
            )

    def prediction(self, prediction: Prediction) -> None:
        """Check what a prediction holds besides features and output.

        Raises
        ------
        SchemaError
            If the version is no text, the role is not known, an entity key is no text, or an age is no
            number of seconds.
        """
        entity, ages_s = prediction.entity, prediction.ages_s
        if (
            type(prediction.version) is str
            and prediction.role in _ROLES
            and type(prediction.propensity) is float
            and entity == {}
            and ages_s == {}
        ):
            return  # nearly every one
        if not isinstance(prediction.version, str) or prediction.role not in _ROLES:
            raise SchemaError(
                f"prediction {prediction.id!r}: version {prediction.version!r} in role "
                f"{prediction.role!r}",
                hint=f"send the version as text, and one of the roles {', '.join(_ROLES)}",
            )
        if isinstance(prediction.propensity, bool):
            raise SchemaError(
                f"prediction {prediction.id!r}: propensity is a bool",
                hint="send 1.0 where no router chose",
            )
        if not isinstance(entity, dict) or (
            entity and not all(isinstance(part, str) for pair in entity.items() for part in pair)
        ):
            raise SchemaError(
                f"prediction {prediction.id!r}: entity {prediction.entity!r} is not text by text",
                hint='send keys such as {"customer": "c-17"}',
            )
        if not isinstance(ages_s, dict) or not all(
            isinstance(name, str) and type(age) is float and 0.0 <= age < inf
            for name, age in ages_s.items()
        ):
            raise SchemaError(
                f"prediction {prediction.id!r}: ages_s {ages_s!r} is not seconds by table",
                hint='send ages such as {"spending": 12.5}',
            )

    def label(self, label: Label) -> None:
        """Check one label's value and source.

        Raises
        ------
        SchemaError
            If it is not of the task's type.
        NonFiniteError
            If it is NaN or infinite.
        """
        prediction_id, value = label.prediction_id, label.value
        wanted = _LABEL_TYPES[self._task]
        if type(value) is wanted[0] and label.source in _SOURCES and type(value) is not float:
            return  # nearly every one
        if label.source not in _SOURCES:
            raise SchemaError(
                f"label of {prediction_id!r}: source {label.source!r} is not known",
                hint=f"send one of {', '.join(_SOURCES)}",
            )
        if not isinstance(value, wanted) or (self._task != "binary" and isinstance(value, bool)):
            raise SchemaError(
                f"label of {prediction_id!r}: {value!r} is not a label of a {self._task} task",
                hint=f"send a {wanted[0].__name__}",
            )
        if not isinstance(value, str) and not _is_finite(value):
            raise NonFiniteError(
                f"label of {prediction_id!r} is not finite", hint="send a label when it is known"
            )


def _is_finite(value: float) -> bool:
    """Say whether a number is one that 64 bits hold as a float."""
    try:
        return isfinite(value)
    except OverflowError:
        return False


def plain_words(error: msgspec.ValidationError, within: str = "") -> str:
    """Say in plain words what msgspec found.

    Parameters
    ----------
    error
        As msgspec raises it.
    within
        Where what was decoded stands, such as ``features.``; put before the place in it.

    Examples
    --------
    >>> plain_words(msgspec.ValidationError("Object missing required field `x`"))
    'it lacks `x`'
    >>> plain_words(msgspec.ValidationError("Expected `float`, got `str` - at `$.x`"), "features.")
    'features.x: expected `float`, got `str`'
    """
    said, _, place = str(error).partition(" - at `$")
    said = said.replace("Object missing required field", "it lacks")
    said = said.replace("Object contains unknown field", "it holds the unknown field")
    said = said.replace("Invalid enum value", "it may not be")[:_LONGEST]
    where = (within + place.rstrip("`").removeprefix(".")).rstrip(".")
    return f"{where}: {said[0].lower()}{said[1:]}" if where else said
