"""How a pipeline answers: serving, routing, people, batch."""
