"""Parameters of every stage and of the trainer, and the presets."""
