"""The flow that materialises the tables of batch features."""

from headwater.flows.loop_flows import materialise

__all__ = ["materialise"]
