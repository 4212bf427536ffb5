"""What attacks without gradients return, and the count of what they asked."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Queried:
    """The result of an attack that only asks for outputs.

    Attributes
    ----------
    points : like x, inside the box; what was found, and x itself where nothing was.
    success : (n,) bool, whether they are misclassified (or classified as their target).
    queries : (n,) int64, inputs that the attack asked the model about, for each image; what it
        takes to check the arguments and to judge the points afterwards is not counted.
    """

    points: Tensor
    success: Tensor
    queries: Tensor
