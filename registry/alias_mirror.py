"""The aliases in MLflow: they mirror the champion's row, and a changed one is a request to promote.

The champion's number is kept beside the states, too, in case database and MLflow are lost.
"""

from headwater.infra.commit_points import reached
from headwater.infra.store.open_storage import states_of
from headwater.registry.champion import Championship
from headwater.registry.mlflow_store.connection import MlflowConnection, guarded
from headwater.registry.mlflow_store.kept_versions import keep_champion
from headwater.registry.mlflow_store.versions import CHALLENGER, CHAMPION, VersionStore
from headwater.spec.rulings import Reign

__all__ = ["AliasMirror"]

_PREVIOUS = "previous"


class AliasMirror:
    """Keeps the aliases of one pipeline's versions equal to the champion's row.

    Parameters
    ----------
    connection, store, championship
        MLflow, the versions, and the row.
    """

    def __init__(
        self, connection: MlflowConnection, store: VersionStore, championship: Championship
    ) -> None:
        self._connection = connection
        self._store = store
        self._championship = championship
        self._states = states_of(connection.settings)

    def set(self, alias: str, number: str | None) -> None:
        """Point an alias at a version, or remove it.

        Raises
        ------
        StorageError
            If MLflow refuses.
        """
        client, pipeline = self._connection.client, self._connection.pipeline
        with guarded(self._connection.settings):
            if number is None:
                client.delete_registered_model_alias(pipeline, alias)
            else:
                client.set_registered_model_alias(pipeline, alias, number)

    def mirror(self) -> None:
        """Set the aliases to the present reign, if they differ from it."""
        reign = self._championship.reign()
        if reign is not None:
            self._mirror(reign, self._store.aliases())

    def requested(self) -> str | None:
        """Return the version that an alias changed from outside asks for; if there is none, mirror."""
        reign = self._championship.reign()
        if reign is None:
            return None
        if not self._championship.mirrored():
            self.mirror()
            return None
        aliases = self._store.aliases()
        requested = aliases.get(CHAMPION)
        if requested is None or requested == reign.version:
            self._mirror(reign, aliases)
            return None
        return requested

    def _mirror(self, reign: Reign, aliases: dict[str, str]) -> None:
        targets = {CHAMPION: reign.version, _PREVIOUS: reign.previous}
        if aliases.get(CHALLENGER) == reign.version:
            targets[CHALLENGER] = None
        for alias, number in targets.items():
            if aliases.get(alias) != number:
                deleted = alias == _PREVIOUS and number is not None and not self._store.holds(number)
                self.set(alias, None if deleted else number)
        reached("promote.after_mirror")
        if not self._championship.mirrored():
            if self._states is not None:
                keep_champion(self._states, self._connection.pipeline, reign.version)
            self._championship.note_mirrored(reign.epoch)
