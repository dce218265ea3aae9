"""The real demo corpus and the planted world."""
