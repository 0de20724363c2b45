"""Everything that imports Dagster: assets, sensors, jobs, checks, schedules and resources."""
