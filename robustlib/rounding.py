"""How far a floating-point sum can be from the real one.

A sum of n products, computed in any order, is off by at most n·u/(1 − n·u) times the sum of the
magnitudes (u = 2⁻⁵³). We allow (n + 8)·2⁻⁵², more than twice that, so that the few operations
around a sum and the rounding of the error bound itself are covered too.

That holds for products that do not underflow. One that does is off by at most 2⁻¹⁰⁷⁵ more, whatever
its size; ``underflow`` allows 2⁻¹⁰⁷⁰.
"""

UNIT = 2.0**-52
TINY = 2.0**-1070


def rounding(terms: int) -> float:
    """Relative bound of the rounding error of a sum of ``terms`` products.

    >>> rounding(92) == 100 * 2.0**-52
    True
    """
    return (terms + 8) * UNIT


def underflow(terms: int, reach: float = 0.0) -> float:
    """Absolute bound of what underflow adds to a sum of ``terms`` products.

    ``reach`` is the sum of the magnitudes that coefficients computed in this way will multiply.

    >>> 0 < underflow(10, 100.0) < 1e-300
    True
    """
    return terms * TINY * (1.0 + reach)
