"""The flow of the stateless update."""

from headwater.flows.loop_flows import retrain

__all__ = ["retrain"]
