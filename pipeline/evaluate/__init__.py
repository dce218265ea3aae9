"""Evaluation of exported models: metrics on arrays, features, one table of results. No Spark."""
