"""Reading a torch module: the same function, or a refusal that names the layer."""

import numpy as np
import pytest
import torch
from torch import nn

from robustlib.network import MaxPool, from_torch, margin_rows

READABLE = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 2)), (3,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(3, 2, bias=False)), (3,)),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2)),
        (3,),
    ),
    "dropout and identity": (
        lambda: nn.Sequential(nn.Dropout(), nn.Linear(3, 2), nn.Identity()),
        (3,),
    ),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)), nn.Flatten(), nn.Linear(36, 2)
        ),
        (2, 5, 5),
    ),
    "dilated": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2, dilation=2), nn.Flatten(), nn.Linear(18, 2)),
        (1, 5, 5),
    ),
    "max-pooling": (
        lambda: nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(), nn.Linear(9, 2)),
        (1, 5, 5),
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_the_steps_compute_the_module(name):
    make, shape = READABLE[name]
    module = make().double().eval()
    x = torch.randn(20, *shape, dtype=torch.float64)
    got = from_torch(module, shape).forward(x.reshape(20, -1).numpy())
    assert got == pytest.approx(module(x).detach().numpy(), abs=1e-12)


def test_float32_weights_are_kept_exactly():
    module = nn.Sequential(nn.Linear(3, 2)).eval()
    weight = from_torch(module, (3,)).steps[0].weight
    assert (weight == module[0].weight.detach().double().numpy()).all()


def test_a_padded_place_never_wins_a_window():
    pool = MaxPool(np.array([[0, -1], [-1, 1]]))
    assert pool(np.array([[-5.0, -7.0]])).tolist() == [[-5.0, -7.0]]


class Residual(nn.Module):
    def forward(self, x):
        return x + x


class Clamped(nn.Sequential):
    def forward(self, x):
        return super().forward(x.clamp(0, 1))


REFUSED = {
    "a smooth activation": (
        nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), (2,), "layer 1 is Sigmoid",
    ),
    "an own module": (nn.Sequential(Residual(), nn.Linear(2, 2)), (2,), "layer 0 is Residual"),
    "a bare own module": (Residual(), (2,), "model is Residual"),
    "groups": (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), (2, 1, 1), "layer 0 .*groups=1"),
    "ceil mode": (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), (1, 3, 3), "layer 0: ceil_mode"),
    "no flatten": (
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(4, 2)), (1, 2, 2), "put Flatten",
    ),
    "a wrong input shape": (nn.Sequential(nn.Linear(3, 2)), (4,), "its input has shape \\(4,\\)"),
    "a window too large": (nn.Sequential(nn.Conv2d(1, 1, 5)), (1, 3, 3), "window larger"),
    "a window of padding": (
        nn.Sequential(nn.MaxPool2d(2, padding=1, dilation=3)), (1, 2, 2), "holds only padding",
    ),
    "a Sequential that does more": (
        nn.Sequential(Clamped(nn.Linear(1, 2))), (1,), "layer 0 is Clamped",
    ),
    "one logit": (nn.Sequential(nn.Linear(2, 1)), (2,), "has one output"),
    "no logits": (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (2,), "must end in a Linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name):
    module, shape, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_torch(module.eval(), shape)


def test_training_mode_and_bad_weights_are_refused():
    module = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="training mode"):
        from_torch(module.train(), (2,))
    module[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\) has NaN"):
        from_torch(module.eval(), (2,))


def test_margin_rows_by_hand():
    assert margin_rows(1, 3).tolist() == [[-1, 1, 0], [0, 1, -1]]
    assert margin_rows(1, 3, [2]).tolist() == [[0, 1, -1]]


def test_a_layer_that_stands_twice_is_read_twice():
    relu, same = nn.ReLU(), nn.Linear(2, 2)
    network = from_torch(nn.Sequential(same, relu, same, relu, nn.Linear(2, 2)).eval(), (2,))
    assert [type(s).__name__ for s in network.steps] == ["Affine", "ReLU"] * 2 + ["Affine"]
