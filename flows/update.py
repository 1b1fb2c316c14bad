"""The flow that carries out a decision."""

from headwater.flows.loop_flows import update

__all__ = ["update"]
