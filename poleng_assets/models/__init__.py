"""The model registry: MLflow, without Dagster."""
