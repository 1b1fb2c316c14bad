"""The flow of the stateful update."""

from headwater.flows.loop_flows import fine_tune

__all__ = ["fine_tune"]
