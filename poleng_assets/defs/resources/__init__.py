"""The machine outside the graph: the warehouse, the landing folders, the model registry."""
