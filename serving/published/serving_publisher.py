"""Publish what is to serve, also where the keeper of another service of the same home does so, too."""

import logging

from msgspec.structs import replace

from headwater.infra.tracing import span
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.spec.answering import feature_types
from headwater.spec.errors import DigestError, StorageError

__all__ = ["ServingPublisher"]

_MOST_EARLIER = 2
_logger = logging.getLogger("headwater.keeper")


class ServingPublisher:
    """Publish what one keeper wants to serve, which makes it, and calls :meth:`publish` each step.

    Two services of one home have a keeper each, perhaps of two releases. Both follow the same champion,
    and publish it once; what the other one published stays, unless it is of an earlier reign.

    Parameters
    ----------
    live
        The files of the pipeline's states.
    pipeline
        Its name.

    Raises
    ------
    IdentityError
        If the files published in the home belong to another log.
    """

    def __init__(self, live: PublishedModels, pipeline: str) -> None:
        self._live = live
        self._pipeline = pipeline
        self._publication = live.publication()
        self._found = self._read()
        self._wanted: ServingFile | None = None
        self._others_epoch = 0

    @property
    def version(self) -> str | None:
        """The number of the version that workers serve as champion; None if none was published."""
        return None if self._found is None else self._found.states[0].version

    def publish(self, wanted: ServingFile) -> bool:
        """Publish what is to serve, if it differs from what was wanted before, or the file is gone.

        Parameters
        ----------
        wanted
            What is to serve; its number, and the earlier champions, are set here.

        Returns
        -------
        bool
            Whether it was published.
        """
        publication = self._live.publication()
        if publication != self._publication:
            self._publication, self._found = publication, self._read()
            self._others_epoch = 0 if self._found is None else self._found.epoch
        found = self._found
        if self._others_epoch > wanted.epoch:
            return False  # another keeper has seen a reign that this one will see
        if found is not None and wanted == self._wanted and found.epoch == wanted.epoch:
            return False
        self._wanted = wanted
        earlier = () if found is None else _earlier(found, wanted.states[0])
        number = 0 if found is None else found.number
        serving = replace(wanted, number=number, earlier=earlier)
        if serving == found:
            return False
        serving = replace(serving, number=number + 1)
        with span("publish", {"pipeline": self._pipeline, "version": wanted.states[0].version}):
            self._live.publish(serving)
        self._publication, self._found, self._others_epoch = self._live.publication(), serving, 0
        return True

    def _read(self) -> ServingFile | None:
        """Return what is published; a damaged file is published anew."""
        try:
            return self._live.read()
        except (StorageError, DigestError) as error:
            _logger.warning("%s: published anew: %s", self._pipeline, error)
            return None


def _earlier(before: ServingFile, champion: ServedState) -> tuple[ServedState, ...]:
    """Return the last champion of each other set of features, the newest first."""
    seen, earlier = [feature_types(champion.features)], []
    for state in (before.states[0], *before.earlier):
        types = feature_types(state.features)
        if types and types not in seen:  # those of a file of before are not known
            seen.append(types)
            earlier.append(state)
    return tuple(earlier[:_MOST_EARLIER])
