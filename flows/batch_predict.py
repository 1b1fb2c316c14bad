"""The flow that scores a table with the champion."""

from headwater.flows.loop_flows import batch_predict

__all__ = ["batch_predict"]
