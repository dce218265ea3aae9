"""Entry points: one job a stage, named verb_object."""
