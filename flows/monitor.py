"""The flow that watches a pipeline and decides."""

from headwater.flows.loop_flows import monitor

__all__ = ["monitor"]
