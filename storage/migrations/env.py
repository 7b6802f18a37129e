"""Run by alembic: applies steps over the connection that `upgrade` was given, in its transaction."""

from alembic import context

from storage.schema import metadata

# SQLite can't alter most of a table in place; alembic then makes a new one and copies.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
