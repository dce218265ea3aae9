"""Growth of costs with the number of rows: exponents between sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping


def exponents(values: Mapping[int, float]) -> dict[str, float]:
    """Exponent e of rows**e from each size to the next.

    Args:
        values: rows -> seconds or bytes, above 0; a size with 0 is left out.

    Returns:
        ``1000000-10000000`` -> exponent, 1.0 where ten times the rows cost ten times as much.
    """
    sizes = sorted(size for size, value in values.items() if value > 0)
    return {
        f"{few}-{many}": math.log(values[many] / values[few]) / math.log(many / few)
        for few, many in itertools.pairwise(sizes)
    }
