"""Updates of a model: updates, triggers, evidence, decisions."""
