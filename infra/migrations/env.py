"""Run migrations on the connection that :class:`headwater.infra.store.database.Database` gives."""

from alembic import context

from headwater.infra.store import queue_tables

every_table = queue_tables.queue.metadata  # the module imports that of the other tables
context.configure(connection=context.config.attributes["connection"], target_metadata=every_table)
with context.begin_transaction():
    context.run_migrations()
