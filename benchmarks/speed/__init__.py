"""The cost and latency of a prediction and of learning a label, beside no-ops and other servers."""
