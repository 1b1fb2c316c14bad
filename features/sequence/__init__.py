"""From records to examples at offsets."""
