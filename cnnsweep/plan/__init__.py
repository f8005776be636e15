"""The plan of a sweep: what it would try and cost."""
