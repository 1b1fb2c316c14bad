"""Prefect flows, their deployments, and the local stack that they run on."""

from headwater.infra.offline import quiet

quiet()  # before any module of this room imports Prefect
