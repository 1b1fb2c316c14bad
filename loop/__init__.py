"""Collect, assemble, update, publish, evaluate, replay: the one loop, without Prefect or HTTP."""
