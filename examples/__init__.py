"""Worked examples: pipelines on real data, from the first declaration to the last label."""
