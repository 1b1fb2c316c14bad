"""``@task`` around functions of the loop: retries, artifacts, assets; nothing else."""

from headwater.infra.offline import quiet

quiet()  # before any module of this room imports Prefect
