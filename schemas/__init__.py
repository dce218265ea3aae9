"""Table contracts: columns, types, units, keys. Plain Python, no Spark."""
