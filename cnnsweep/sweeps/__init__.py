"""The loop of a sweep, its journal, and what keeps it safe."""
