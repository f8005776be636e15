"""The search space: which keys may vary, which networks that makes, and how many."""
