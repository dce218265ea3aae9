"""From noisy image annotations to a pretraining dataset, and pretraining on it."""
