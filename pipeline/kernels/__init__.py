"""Array kernels: numpy, Arrow, torch and faiss in, the same out. No Spark, disk or clock."""
