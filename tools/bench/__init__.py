"""``make bench``: how fast and how large the project is, beside the limit of the machine and its rivals.

    python -m tools.bench [--data DIR] [--quick | --full] [--only scoring,report,...] [--rows N]

``parts.py`` says what each row of the table is, ``tasks.py`` what the measured processes do,
``seeds_way.py`` and ``lean.py`` are the rivals. ``docs/reference/benchmarks.md`` explains it to people.
"""
