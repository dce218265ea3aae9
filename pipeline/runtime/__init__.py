"""The Spark side: sessions, reading, writing, checking and publishing tables."""
