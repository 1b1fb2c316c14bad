"""headwater keeps a production model learning."""
