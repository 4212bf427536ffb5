"""Learning a first convolution in the coordinates in which patches of images are white."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE = 500  # images, spread evenly over the set
RIDGE = 0.03  # standard deviation, in the unit of the images, below which nothing is amplified


class Whitening:
    """Makes gradient steps on the first convolution W of ``net`` steps on P, where W = P B.

    B = (Σ + r² I)^(−1/2), Σ the covariance of the patches of ``x`` that W is applied to. On 3×3
    patches of CIFAR-10 the standard deviation is 1.1 along the coarsest pattern and below 0.02
    along ten of the 27, so plain gradient descent needs many more epochs for filters of fine
    patterns, which carry most of what is useful and not robust. The network is an ordinary one;
    only its first filters are learned sooner.

    A step on P by the gradient G Bᵀ is a step on W by G B Bᵀ (momentum and weight decay are
    linear), so ``start`` multiplies the initial weights by B and ``gradient`` the gradient by B².

    Parameters
    ----------
    net : nn.Module
        With at least one convolution.
    x : Tensor (n, C, H, W)
        What it is trained on.

    Raises
    ------
    ValueError
        If ``net`` has no convolution.

    Examples
    --------
    >>> from robustlib import data
    >>> net, (x, _) = nn.Sequential(nn.Conv2d(3, 4, 3)), data.shapes("train", n=50)
    >>> white = Whitening(net, x)
    >>> white.start()
    >>> white.basis.shape
    torch.Size([27, 27])
    """

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        found = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
        if not found:
            raise ValueError("net has no convolution to whiten; set whiten=False.")
        self.weight = found[0].weight
        some = x[:: max(1, len(x) // SAMPLE)][:SAMPLE].contiguous()
        size, stride = self.weight.shape[2:], found[0].stride
        patches = F.unfold(some, tuple(size), stride=stride).transpose(1, 2).flatten(0, 1)
        covariance = torch.cov(patches.double().T)
        values, vectors = torch.linalg.eigh(covariance)
        scale = (values.clamp_min(0) + RIDGE**2).rsqrt()
        self.basis = ((vectors * scale) @ vectors.T).to(x.dtype)
        self.square = self.basis @ self.basis

    def start(self) -> None:
        """Multiply the initial weights by B."""
        with torch.no_grad():
            self.weight.copy_(self._times(self.weight, self.basis))

    def gradient(self) -> None:
        """Multiply the gradient of the weights by B²."""
        assert self.weight.grad is not None
        self.weight.grad.copy_(self._times(self.weight.grad, self.square))

    @staticmethod
    def _times(weight: Tensor, matrix: Tensor) -> Tensor:
        return (weight.flatten(1) @ matrix).view(weight.shape)
