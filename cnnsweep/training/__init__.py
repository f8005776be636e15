"""Training one trial: checkpoints, evaluation, cached features and the cost model."""
