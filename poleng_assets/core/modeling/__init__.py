"""Training: candidates, tuning, the model, and what it says of single people."""
