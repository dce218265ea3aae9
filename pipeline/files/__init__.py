"""The one filesystem layer: every root is a URI."""
