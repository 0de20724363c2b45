"""What decides and what computes: plain functions on tables and dataclasses, no Dagster."""
