"""Running the graph without a daemon."""
