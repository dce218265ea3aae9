"""Ablations: arms from configuration, shared stages and runs, paired differences, verdicts."""
