"""The explorer's views from published tables: one module a view, samples only."""
