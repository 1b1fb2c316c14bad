"""Evidence: performance, drift, attention, estimates, and the reports of them."""
