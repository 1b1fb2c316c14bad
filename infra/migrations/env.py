"""Run migrations on the connection that :class:`headwater.infra.store.database.Database` gives."""

from alembic import context

from headwater.infra.store.schema import every_table

context.configure(connection=context.config.attributes["connection"], target_metadata=every_table)
with context.begin_transaction():
    context.run_migrations()
