"""Making the project live without real data: a synthetic population, and scenarios played with it."""
