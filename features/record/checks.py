"""Checks of records, before anything is stored."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import inf
from typing import get_args

import msgspec

from headwater.features.record.fields import Fields
from headwater.spec.data.label import LabelRule
from headwater.spec.data.lossless import is_rounded
from headwater.spec.data.records import FeatureValue, Label, Output, Prediction, Role, Source
from headwater.spec.data.values import (
    LARGEST,
    LONGEST_NAME,
    check_name,
    is_sound,
    misfit_of_class,
    misfit_of_name,
)
from headwater.spec.errors import NonFiniteError, SchemaError, few
from headwater.spec.outputs import misfit_of_output
from headwater.spec.pipeline import Pipeline

__all__ = ["Checks", "check_entity", "hint_of", "plain_words"]

_LONGEST = 300  # what is wrong may quote a value
_MOST_KEYS = 20
_CLASSES_SHOWN = 20
_ROLES: tuple[str, ...] = get_args(Role)
_SOURCES = tuple(source for source in get_args(Source) if source != "timeout")
_LABEL_TYPES: dict[str, tuple[type, ...]] = {
    "binary": (bool,),
    "multiclass": (str,),
    "regression": (float, int),
}


_NAIVE = ("`datetime` with a timezone component", "a time with a zone")
_NO_TIME = ("Invalid RFC3339 encoded datetime", "it is no ISO time")
_OUTPUT_HINTS: dict[str, str] = {
    "binary": "send the chance of True, from 0 to 1; if a model made it, look at the model",
    "multiclass": "send a chance by class; if a model made it, look at the model",
    "regression": "send one number; if a model made it, look at the model",
}


class Checks:
    """The checks that a pipeline's predictions and labels must pass.

    Parameters
    ----------
    pipeline
        Whose schema they must fit.

    Attributes
    ----------
    logged, request
        The features that are logged, and those that arrive with a call: the same ones if none is
        looked up and none declares a range.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._task = pipeline.task
        self._rule = pipeline.label
        self._classes = frozenset(pipeline.label.closed_classes)
        self._names = pipeline.feature_names
        request_features = pipeline.request_features
        due = pipeline.label.due
        self.logged = Fields(pipeline.features, ranged=False, due=due)
        plain = len(request_features) == len(pipeline.features) and not any(
            f.is_ranged for f in request_features
        )
        self.request = self.logged if plain else Fields(request_features, ranged=True, due=due)

    def features(self, prediction_id: str, features: Mapping[str, FeatureValue]) -> msgspec.Struct:
        """Check one prediction's features.

        Returns
        -------
        msgspec.Struct
            The features in an order of their own, so that equal ones are written alike.

        Raises
        ------
        SchemaError
            If a feature is missing, unknown or of another type, or a text holds what no store does.
        NonFiniteError
            If a number is NaN, infinite or beyond what is learned.
        """
        try:
            fitting = self._converted(features)
        except msgspec.ValidationError as error:
            raise SchemaError(
                f"prediction {prediction_id!r}: {plain_words(error)}",
                hint=f"send exactly the features {', '.join(self._names)}",
            ) from error
        try:
            if self.logged.fit(fitting):
                self.logged.check_exact(features)
        except SchemaError as error:
            raise type(error)(f"prediction {prediction_id!r}: {error.what}", error.hint) from error
        return fitting

    def _converted(self, features: Mapping[str, FeatureValue]) -> msgspec.Struct:
        try:
            return msgspec.convert(features, self.logged.type)
        except msgspec.ValidationError:  # nearly every one has the declared types
            return self.logged.convert(features)

    def output(self, prediction_id: str, output: Output) -> None:
        """Check one prediction's output.

        Raises
        ------
        SchemaError
            If it is not one of the task's, as :func:`~headwater.spec.outputs.misfit_of_output` has them.
        NonFiniteError
            If it is a number that is NaN, infinite or beyond what is learned.
        """
        why = misfit_of_output(self._task, output)
        if why is None:
            return
        numbers = output.values() if isinstance(output, dict) else (output,)
        wrong = any(isinstance(number, float) and not is_sound(number) for number in numbers)
        raise (NonFiniteError if wrong else SchemaError)(
            f"prediction {prediction_id!r}: output {str(output)[:_LONGEST]} {why}",
            hint=_OUTPUT_HINTS[self._task],
        )

    def prediction(self, prediction: Prediction) -> None:
        """Check the fields of a prediction besides features and output.

        Raises
        ------
        SchemaError
            If the version is no name, the role is not known, an entity key is no name, or an age is no
            number of seconds.
        """
        entity, ages_s = prediction.entity, prediction.ages_s
        if (
            type(prediction.version) is str
            and len(prediction.version) <= LONGEST_NAME
            and prediction.version.isprintable()
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
                hint="send 1.0 if no router chose",
            )
        if prediction.version:
            check_name(prediction.version, f"version of prediction {prediction.id!r}")
        if not isinstance(entity, dict):
            raise SchemaError(
                f"prediction {prediction.id!r}: entity {prediction.entity!r} is not text by text",
                hint='send keys such as {"customer": "c-17"}',
            )
        check_entity(entity, f"prediction {prediction.id!r}: ")
        if not isinstance(ages_s, dict) or not all(
            misfit_of_name(name) is None and type(age) is float and 0.0 <= age < inf
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
            If it is not of the task's type, a class that is no name or not declared, or outside the
            declared range.
        NonFiniteError
            If it is NaN, infinite or beyond what is learned.
        """
        prediction_id, value = label.prediction_id, label.value
        types = _LABEL_TYPES[self._task]
        if type(value) is bool and types[0] is bool and label.source in _SOURCES:
            return  # nearly every one
        if label.source not in _SOURCES:
            known = "headwater's own" if label.source == "timeout" else "not known"
            raise SchemaError(
                f"label of {prediction_id!r}: source {label.source!r} is {known}",
                hint=f"send one of {', '.join(_SOURCES)}",
            )
        if not isinstance(value, types) or (self._task != "binary" and isinstance(value, bool)):
            raise SchemaError(
                f"label of {prediction_id!r}: {value!r} is not a label of a {self._task} task",
                hint=f"send a {types[0].__name__}",
            )
        if isinstance(value, str):
            self._check_class(prediction_id, value)
        else:
            self._check_number(prediction_id, value)

    def _check_class(self, prediction_id: str, value: str) -> None:
        why = misfit_of_class(value)
        if why is not None:
            raise SchemaError(
                f"label of {prediction_id!r}: class {value[:_LONGEST]!r} {why}",
                hint="send a class without control characters",
            )
        if self._classes and value not in self._classes:
            raise _not_declared(self._rule, prediction_id, value)

    def _check_number(self, prediction_id: str, value: float) -> None:
        if value != value:  # noqa: PLR0124 - NaN
            raise NonFiniteError(
                f"label of {prediction_id!r} is NaN", hint="send a label when it is known"
            )
        if not is_sound(value):
            raise NonFiniteError(
                f"label of {prediction_id!r} is not finite, or beyond {LARGEST:g}, the largest number "
                "that is learned",
                hint="send it in another unit, or its logarithm",
            )
        if is_rounded(value, "float"):
            raise SchemaError(
                f"label of {prediction_id!r} is the whole number {value}, which a float does not hold",
                hint="send the float that it is: 1.7e18",
            )
        if not self._rule.is_within(value):
            raise SchemaError(
                f"label of {prediction_id!r}: {value!r} is outside the declared range",
                hint=f"send one that is {self._rule.range_words}; or declare another range",
            )


def check_entity(entity: Mapping[str, str], where: str) -> None:
    """Check entity keys.

    Parameters
    ----------
    entity
        Values by name.
    where
        What the text of an error begins with.

    Raises
    ------
    SchemaError
        If a key's name or value is no name, or there are more than 20.
    """
    if len(entity) > _MOST_KEYS:
        raise SchemaError(f"{where}entity: it has {len(entity)} keys", hint=f"send at most {_MOST_KEYS}")
    for name, value in entity.items():
        if misfit_of_name(name) is not None:
            check_name(name, f"{where}entity")
        if misfit_of_name(value) is not None:
            check_name(value, f"{where}entity.{name}")


def plain_words(error: msgspec.ValidationError, within: str = "") -> str:
    """Return a validation error of msgspec in plain words.

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
    text, _, place = str(error).partition(" - at `$")
    text = text.replace("Object missing required field", "it lacks")
    text = text.replace("Object contains unknown field", "it holds the unknown field")
    text = text.replace("Invalid enum value", "it may not be")
    text = text.replace(*_NAIVE).replace(*_NO_TIME).replace("`datetime | null`", "a time or null")
    text = text.replace("`datetime`", "a time")[:_LONGEST]
    where = (within + place.rstrip("`").removeprefix(".")).rstrip(".")
    return f"{where}: {text[0].lower()}{text[1:]}" if where else text


def hint_of(error: msgspec.ValidationError, otherwise: str) -> str:
    """Return what to send instead, if a time is wrong, in the words of a door that takes JSON.

    >>> hint_of(msgspec.ValidationError("Invalid RFC3339 encoded datetime"), "see /docs")
    'send an ISO time with a zone, such as 2026-01-01T00:00:00Z'
    """
    if "datetime" in str(error).partition(" - at `$")[0]:
        return "send an ISO time with a zone, such as 2026-01-01T00:00:00Z"
    return otherwise


def _not_declared(rule: LabelRule, prediction_id: str, value: str) -> SchemaError:
    classes = rule.closed_classes
    near = get_close_matches(value, classes, n=3)
    close = f"; near it: {', '.join(map(repr, near))}" if near else ""
    return SchemaError(
        f"label of {prediction_id!r}: class {value[:_LONGEST]!r} is not declared{close}",
        hint=f"send one of {few(map(repr, classes), _CLASSES_SHOWN)}; or declare it, too",
    )
