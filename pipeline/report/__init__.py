"""Pictures and summaries drawn from published tables."""
