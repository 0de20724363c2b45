"""Web servers: the champion over HTTP (``poleng serve``), and the guard of Dagster's and MLflow's UIs.

The server only reads: the graph decides which version serves, and the server follows. Requests are never
stored or logged, because answers of people are special-category data.
"""
