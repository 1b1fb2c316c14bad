"""The feature log: predictions, labels and examples; log and wait."""
