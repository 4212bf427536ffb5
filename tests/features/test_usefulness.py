"""Usefulness against closed forms: Gaussian features, linear features, and what must be refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustlib.features import robust_usefulness, usefulness


def test_a_gaussian_feature_has_the_usefulness_of_its_signal_to_noise_ratio() -> None:
    """f = y m + noise: E[y f] / std f = m / √(1 + m²), at any share of the classes."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(40_000, generator=generator) < 0.3).long()
    means = torch.tensor([0.0, 0.5, -2.0])
    noise = torch.randn(40_000, 3, generator=generator)
    rho = usefulness((2 * y[:, None] - 1) * means + noise, y, classes=2)
    wanted = means / (1 + means**2).sqrt()
    assert torch.allclose(rho[:, 1], wanted, atol=0.015)
    assert torch.allclose(rho[:, 0], -rho[:, 1])


def test_shift_and_scale_of_a_feature_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    f, y = torch.randn(500, 4, generator=generator), torch.arange(500) % 5
    rho = usefulness(f, y, classes=5)
    assert torch.allclose(usefulness(3 * f + 7, y, classes=5), rho, atol=1e-5)
    assert torch.allclose(usefulness(-f, y, classes=5), -rho, atol=1e-5)
    assert bool((usefulness(torch.ones(500, 1), y, classes=5) == 0).all())


def test_a_linear_feature_loses_eps_times_its_slope() -> None:
    """f = wᵀx: γ = ρ − ε ‖w‖ / std f, for as long as the box is far (Goh 2019, equation 2)."""
    generator = torch.Generator().manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False), nn.Linear(3, 2)).eval()
    y = torch.arange(400) % 2
    x = 0.5 + 0.02 * torch.randn(400, 6, generator=generator) + 0.03 * (2 * y - 1)[:, None]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    rho, gamma, label = robust_usefulness(net, x, y, eps=0.05, layer="1", steps=10)
    weight = net[1].weight.detach()
    spread = (x @ weight.T).std(0, correction=0)
    assert torch.allclose(gamma, rho - 0.05 * weight.norm(dim=1) / spread, atol=2e-3)
    assert torch.allclose(rho, usefulness(x @ weight.T, y, classes=2).abs().amax(1), atol=1e-5)
    assert label.shape == (3,)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_bad_input_is_refused() -> None:
    f, y = torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="class 2"):
        usefulness(f, y, classes=3)
    with pytest.raises(ValueError, match="labels"):
        usefulness(f, 2 * y, classes=2)
    with pytest.raises(ValueError, match=r"\(n, k\)"):
        usefulness(f[:, 0], y, classes=2)
    with pytest.raises(ValueError, match="NaN"):
        usefulness(f + torch.nan, y, classes=2)
    net = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2)).eval()
    x = torch.full((4, 6), 0.5)
    with pytest.raises(ValueError, match="which"):
        robust_usefulness(net, x, y, eps=0.1, layer="0", which=[3])
    with pytest.raises(ValueError, match="eps"):
        robust_usefulness(net, x, y, eps=0.0, layer="0")
    with pytest.raises(ValueError, match="layer"):
        robust_usefulness(net, x, y, eps=0.1)
