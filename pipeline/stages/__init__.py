"""One stage a file: a function of its tables and its parameters, nothing else."""
