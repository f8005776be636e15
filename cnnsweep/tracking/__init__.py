"""Logging to MLflow, and reading back from it."""
