"""Runs of flows against the stack's Prefect, from another process.

Prefect reads the address of its API when it is imported, so this module imports it when a flow runs.
"""

import importlib
from typing import Any

from headwater.flows.stack.prefect_environment import environment, within
from headwater.flows.stack.record import find_stack, prefect_key
from headwater.infra.offline import quiet
from headwater.infra.settings import Settings
from headwater.spec.errors import NotFoundError, ServerError, few

__all__ = ["FLOWS", "run_flow"]

_NAMES = ("collect", "retrain", "fine-tune", "monitor", "update", "materialise", "batch-predict")
FLOWS = {name: "headwater.flows.{0}:{0}".format(name.replace("-", "_")) for name in _NAMES}
"""The entrypoints of the flows, by name; deployments and running stacks have stored them."""


def run_flow(name: str, reference: str, settings: Settings) -> dict[str, Any]:
    """Run a flow in this process, as a run that the stack's Prefect records and shows.

    Without a stack, call the functions of ``headwater.loop``, which need no Prefect.

    Parameters
    ----------
    name
        One of :data:`FLOWS`.
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    settings
        Where its stores are, and the stack.

    Returns
    -------
    dict
        The result of the flow.

    Raises
    ------
    NotFoundError
        If there is no such flow.
    ServerError
        If no stack runs.
    HeadwaterError
        As the flow's tasks do.
    """
    if name not in FLOWS:
        raise NotFoundError(f"no flow {name!r}", hint=f"write one of {few(FLOWS)}")
    stack = find_stack(settings)
    if stack is None:
        raise ServerError(
            f"no stack runs below {settings.root}", hint="start it in another terminal: headwater up"
        )
    quiet()
    variables = environment(settings, secrets=True) | {
        "PREFECT_HOME": str(settings.root / "prefect"),
        "PREFECT_API_URL": stack.prefect_api,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the caller shows errors itself
    }
    key = prefect_key(stack.prefect_api, settings)
    if key is not None:
        variables["PREFECT_API_AUTH_STRING"] = key
    with within(variables):
        from prefect.settings import (  # noqa: PLC0415 - not before
            PREFECT_API_AUTH_STRING,
            PREFECT_API_URL,
            temporary_settings,
        )

        module, _, function = FLOWS[name].partition(":")
        with temporary_settings({PREFECT_API_URL: stack.prefect_api, PREFECT_API_AUTH_STRING: key}):
            flow = getattr(importlib.import_module(module), function)
            result: dict[str, Any] = flow(reference)
    return result
