"""Pretraining on a release: models, data, loss, optimiser, checkpoints, loop. No Spark, no Java."""
