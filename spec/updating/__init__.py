"""How and when a model is updated: updates, triggers, evidence, decisions."""
