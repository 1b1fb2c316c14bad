"""Prefect flows, their deployments, and the local stack that they run on."""

from headwater.infra.offline import quiet
from headwater.infra.settings import settings
from headwater.infra.tracing import begin_tracing

quiet()  # before any module of this room imports Prefect
# Prefect makes a span of each run then. Nothing is kept of the settings: an import is no place to.
begin_tracing(settings.__wrapped__(), "headwater-flows")
