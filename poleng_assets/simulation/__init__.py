"""The simulation: a synthetic population, and scenarios that use it."""
