"""From noisy image annotations to a pretraining dataset, and pretraining on it."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a driver or a zip may meet any Python
    # Here, since no other module can even be compiled by an old one.
    _FOUND = ".".join(map(str, sys.version_info[:3]))
    sys.stderr.write(
        "error: Python " + _FOUND + " at " + sys.executable + " is too old, 3.11 or newer is "
        "needed: use .venv/bin/python, which `make` creates (make PYTHON=/path/to/python3.11), or "
        "name one with PYSPARK_PYTHON.\n"
    )
    sys.exit(2)
