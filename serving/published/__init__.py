"""Files that the keeper publishes to the workers: models, tables, batch answers, alarms."""
