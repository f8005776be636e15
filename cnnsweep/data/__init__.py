"""Data sets: loading, checking, splitting and storing them."""
