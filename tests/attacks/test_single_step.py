"""R+FGSM: its two steps, its ball, and what it finds where FGSM finds nothing."""

from __future__ import annotations

import torch
from test_balls import distance_is_within
from test_gradient import generator, margin, network, predicted

from robustlib.attacks import fgsm, fooled, r_fgsm


def test_without_a_random_step_it_is_fgsm():
    model, x = network(5), torch.rand(16, 6, dtype=torch.float64, generator=generator(3))
    y = predicted(model, x)
    for targeted in (False, True):
        labels = (y + 1) % 4 if targeted else y
        options = {"eps": 0.1, "targeted": targeted}
        assert torch.equal(
            r_fgsm(model, x, labels, start=0, **options), fgsm(model, x, labels, **options)
        )


def test_with_nothing_left_it_is_a_random_corner():
    model, x = (
        network(5),
        0.2 + 0.6 * torch.rand(50, 6, dtype=torch.float64, generator=generator(3)),
    )
    y = predicted(model, x)
    signs = ((r_fgsm(model, x, y, eps=0.1, start=0.1, generator=generator(0)) - x) / 0.1).round()
    assert signs.abs().eq(1).all()
    assert abs(signs.mean()) < 0.2


def test_on_a_linear_model_it_reaches_what_its_last_step_can():
    """margin(x') = margin(x) − w·α s − (ε − α) ‖w‖₁ with random signs s."""
    model = network(3, sizes=(50, 2))
    x = 0.3 + 0.4 * torch.rand(20, 50, dtype=torch.float64, generator=generator(0))
    y = predicted(model, x)
    start = r_fgsm(model, x, y, eps=0.2, start=0.2, generator=generator(1))
    signs = (start - x).sign()
    found = r_fgsm(model, x, y, eps=0.2, start=0.05, generator=generator(1))
    w = (model[0].weight[0] - model[0].weight[1]).detach()
    drop = 0.15 * w.abs().sum()
    assert torch.allclose(margin(model, found, y), margin(model, x + 0.05 * signs, y) - drop)
    assert all(distance_is_within(a, b, 0.2, "inf") for a, b in zip(found, x, strict=True))


class Plateau(torch.nn.Module):
    """Flat within 0.02 of multiples of 0.5, where the images are: FGSM sees no gradient there."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(1, sizes=(20, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = (2 * x).round() / 2
        return self.inner(near + (x - near).sign() * ((x - near).abs() - 0.02).clamp_min(0))


def test_a_random_step_finds_gradients_that_are_hidden_around_the_image():
    model = Plateau().double().eval()
    x = torch.randint(3, (200, 20), generator=generator(2)).double() / 2
    y = predicted(model, x)
    plain = fooled(model, fgsm(model, x, y, eps=0.24), y).sum()
    random = fooled(
        model, r_fgsm(model, x, y, eps=0.24, start=0.04, generator=generator(0)), y
    ).sum()
    assert plain == 0
    assert random >= 20
