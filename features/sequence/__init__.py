"""Sequencing: from records to examples at offsets."""
