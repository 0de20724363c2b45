"""``make bench``: how fast and how large the project is, beside the limit of the machine and the seed's way.

    python -m tools.bench [--data DIR] [--quick | --full] [--only scoring,report,...] [--rows N]

``parts.py`` says what each row of the table is, ``tasks.py`` what the measured processes do,
``seeds_way.py`` is the rival. ``docs/reference/benchmarks.md`` explains it to people.
"""
