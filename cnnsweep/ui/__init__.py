"""The MLflow UI."""
