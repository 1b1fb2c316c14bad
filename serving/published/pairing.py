"""The choice of a pair: the version that answers, and the declaration by which it does. Pure."""

from typing import Any, NamedTuple

from msgspec.structs import replace

from headwater.serving.published.published_models import ServedState, ServingFile
from headwater.spec.answering import answering, feature_types, unanswered
from headwater.spec.errors import ChangedError, few
from headwater.spec.pipeline import Pipeline

__all__ = ["Pairing", "pairing_of"]


class Pairing(NamedTuple):
    """What a service of a declaration serves of a publication.

    Parameters
    ----------
    serving
        The publication; with an earlier champion where the newest one is of a newer declaration.
    pipeline
        The declaration by which it answers.
    misfit
        Why that is not the declared one with the champion; None if it is.
    """

    serving: ServingFile
    pipeline: Pipeline
    misfit: ChangedError | None

    def shown(self) -> dict[str, Any]:
        """Return what serves: a version with what it has learned, and what a request must send."""
        champion = self.serving.states[0]
        return {
            "version": champion.version,
            "features": feature_types(champion.features or self.pipeline.features),
            "requests": feature_types(self.pipeline.request_features),
            "as_declared": self.misfit is None,
        }


def pairing_of(declared: Pipeline, serving: ServingFile, kept: ServedState | None = None) -> Pairing:
    """Choose the pair for a publication.

    A champion that answers what is declared does so. One that cannot is of a declaration of before or
    after. If an earlier champion is older and fits, the service is the older one, and goes on with that.
    Otherwise the champion answers by the declaration that it has learned.

    Parameters
    ----------
    declared
        The declaration that the service was started with.
    serving
        What is published.
    kept
        The champion that answers now.

    Raises
    ------
    ChangedError
        If the champion needs a table that is not declared any more.
    """
    champion, *others = serving.states
    if not champion.features:
        return Pairing(serving, declared, None)
    changes = unanswered(champion.features, declared, serving.recorded)
    if not changes:
        return Pairing(serving, declared, None)
    what = f"version {champion.version}, the champion, is of another declaration: {few(changes, 3)}"
    for earlier in (*serving.earlier, *(() if kept is None else (kept,))):
        if not earlier.features or int(earlier.version) >= int(champion.version):
            continue
        if not unanswered(earlier.features, declared, serving.recorded):
            what = f"{what}; version {earlier.version} answers on, as this service declares"
            hint = (
                "start the service with the newer declaration: headwater plan PIPELINE says what differs"
            )
            kept_serving = replace(serving, states=(earlier, *others))
            return Pairing(kept_serving, declared, ChangedError(what, hint, changes))
    pipeline = answering(declared, champion.features, champion.version)
    own = few(pipeline.feature_names)
    what = f"{what}; it answers by its own, {own}, until a version has learned what is declared"
    hint = f"{changes[0].hint}; headwater plan PIPELINE says what else"
    return Pairing(serving, pipeline, ChangedError(what, hint, changes))
