"""Comparing trials: figures, tables, words and pages."""
