"""What a pipeline says now, against what was in force and what was learned."""
