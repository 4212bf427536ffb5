"""How far a floating-point sum can be from the real one.

A sum of n products, computed in any order, is off by at most n·u/(1 − n·u) times the sum of the
magnitudes (u = 2⁻⁵³). We allow (n + 8)·2⁻⁵², more than twice that, so that the few operations
around a sum and the rounding of the error bound itself are covered too.
"""

UNIT = 2.0**-52


def rounding(terms: int) -> float:
    """Relative bound of the rounding error of a sum of ``terms`` products.

    >>> rounding(92) == 100 * 2.0**-52
    True
    """
    return (terms + 8) * UNIT
