"""Web servers: the champion behind HTTP (``poleng serve``), and the guard of Dagster's and MLflow's UIs.

What scores reads and never writes: the graph decides who serves, and this follows. Nothing that was
asked is kept, logged, or told to anybody but the one who asked: answers of people are special-category data.
"""
