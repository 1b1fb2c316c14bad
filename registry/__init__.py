"""Versions, recipes, lineage and the champion, on MLflow's model registry."""
