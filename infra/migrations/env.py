"""Run migrations on the connection that :class:`headwater.infra.store.database.Database` gives."""

from alembic import context

from headwater.infra.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
