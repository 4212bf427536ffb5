"""Faster gradients of a first convolution on a CPU.

torch hands a convolution to oneDNN, which is slow at the gradient with respect to an input of one
to three channels: 2 to 7 times slower than torch's own kernel, on which a PGD step of a small
network spends half its time. See tests/benchmarks/bench_pgd.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FewChannels(TorchFunctionMode):
    """Inside ``with FewChannels():`` convolutions of few input channels use torch's own kernel.

    Acts on the thread that enters it and changes no module.

    Examples
    --------
    >>> model, x = torch.nn.Conv2d(1, 4, 3), torch.rand(2, 1, 5, 5)
    >>> with FewChannels():
    ...     z = model(x)
    >>> torch.allclose(z, model(x), atol=1e-6)
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and len(args) == 7:
            x, weight, bias, stride, padding, dilation, groups = args
            plain = groups == 1 and dilation == (1, 1) and isinstance(padding, tuple)
            if plain and x.device.type == "cpu" and x.ndim == 4 and x.shape[1] <= 3:
                size = weight.shape[2:]
                return torch.ops.aten.thnn_conv2d(x, weight, size, bias, stride, padding)
        return func(*args, **(kwargs or {}))
