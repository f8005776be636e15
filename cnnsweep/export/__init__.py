"""Exporting the best network, and using it."""
