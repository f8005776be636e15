"""Training one network: its checkpoints, features, evaluation and pictures, and what it costs."""
