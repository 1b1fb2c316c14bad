"""The flow that gives examples their offsets and archives them."""

from headwater.flows.loop_flows import collect

__all__ = ["collect"]
