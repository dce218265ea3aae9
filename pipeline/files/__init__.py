"""The one filesystem layer: local paths, s3:// and whatever else fsspec opens."""
