"""Reading a torch module: the same function, or a refusal that names the layer."""

import numpy as np
import pytest
import torch
from torch import nn

from robustlib.bounds import Box, network_bounds, rows_lower_bound, unstable_units
from robustlib.network import Affine, MaxPool, ReLU, Residual, from_torch, margin_rows
from robustlib.zoo import architectures
from tests.brute_force import folded_network, smallest_module_margins


def zero(layer):
    nn.init.zeros_(layer.weight)
    return layer


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
    "average pooling": (
        lambda: nn.Sequential(nn.AvgPool2d((3, 2), stride=(2, 1), padding=1), nn.ReLU(),
                              nn.Flatten(), nn.Linear(36, 2)),
        (2, 5, 5),
    ),
    "average pooling without the padded places": (
        lambda: nn.Sequential(nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), nn.ReLU(),
                              nn.Flatten(), nn.Linear(18, 2)),
        (2, 5, 5),
    ),
    "average pooling with a divisor": (
        lambda: nn.Sequential(nn.AvgPool2d(2, divisor_override=3), nn.Flatten(), nn.Linear(8, 2)),
        (2, 5, 5),
    ),
    "global average pooling": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(2, 2)),
        (2, 5, 4),
    ),
    "batch norm without weights": (
        lambda: nn.Sequential(nn.BatchNorm2d(2, affine=False), nn.ReLU(), nn.Flatten(),
                              nn.Linear(8, 2)),
        (2, 2, 2),
    ),
    "a shortcut with weights 0": (
        lambda: nn.Sequential(nn.ReLU(), Residual(nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
                                                  zero(nn.Linear(3, 2)))),
        (3,),
    ),
    "an empty block": (
        lambda: nn.Sequential(nn.Linear(3, 2), Residual(nn.Sequential())),
        (3,),
    ),
}  # fmt: skip


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


class Doubled(nn.Module):
    def forward(self, x):
        return x + x


class Clamped(nn.Sequential):
    def forward(self, x):
        return super().forward(x.clamp(0, 1))


def block(size):
    return Residual(nn.Sequential(nn.Linear(size, 2), nn.ReLU(), nn.Linear(2, size)))


REFUSED = {
    "a smooth activation": (
        nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), (2,), "layer 1 is Sigmoid",
    ),
    "an own module": (nn.Sequential(Doubled(), nn.Linear(2, 2)), (2,), "layer 0 is Doubled"),
    "a bare own module": (Doubled(), (2,), "model is Doubled"),
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
    "an average of many outputs": (
        nn.Sequential(nn.AdaptiveAvgPool2d(2)), (1, 4, 4), r"layer 0 .*only AdaptiveAvgPool2d\(1\)",
    ),
    "a flat average": (nn.Sequential(nn.AdaptiveAvgPool2d(1)), (4,), "layer 0 needs inputs"),
    "average pooling in ceil mode": (
        nn.Sequential(nn.AvgPool2d(2, ceil_mode=True)), (1, 3, 3), "layer 0: ceil_mode",
    ),
    "batch statistics": (
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), (2,),
        "layer 1 .*without running statistics.*track_running_stats=True",
    ),
    "batch norm of another width": (
        nn.Sequential(nn.BatchNorm2d(3)), (2, 2, 2), r"layer 0 .*its input has shape \(2, 2, 2\)",
    ),
    "batch norm of another dimension": (nn.Sequential(nn.BatchNorm1d(2)), (2, 2), "layer 0 is"),
    "batch norm that divides by 0": (
        nn.Sequential(nn.BatchNorm1d(2, eps=0.0), nn.Linear(2, 2)), (2,), "not positive",
    ),
    "a skip of negative values": (
        nn.Sequential(nn.Linear(2, 2), block(2)), (2,),
        "layer 1 is a Residual whose input may be negative.*put a ReLU before it",
    ),
    "a skip of the input": (nn.Sequential(block(2)), (2,), "layer 0 is a Residual whose input may"),
    "a skip of an average": (
        nn.Sequential(nn.ReLU(), nn.AvgPool2d(1), nn.Flatten(), block(2)), (2, 1, 1),
        "layer 3 is a Residual whose input may be negative",
    ),
    "max-pooling in a block": (
        nn.Sequential(Residual(nn.Sequential(nn.MaxPool2d(1)))), (1, 1, 1),
        r"layer 0.body.0 is max-pooling inside a Residual.*between two blocks",
    ),
    "a block in a block": (
        nn.Sequential(Residual(nn.Sequential(nn.Linear(2, 2), block(2)))), (2,),
        r"layer 0.body.1 is a Residual inside",
    ),
    "a ReLU in a shortcut": (
        nn.Sequential(Residual(nn.Sequential(), nn.ReLU())), (2,), "layer 0.shortcut is a ReLU",
    ),
    "parts of different shapes": (
        nn.Sequential(nn.ReLU(), Residual(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()))), (1, 2, 2),
        r"body gives shape \(2, 2, 2\) and whose shortcut gives \(1, 2, 2\).*1×1",
    ),
    "an unknown layer in a block": (
        nn.Sequential(Residual(nn.Sequential(nn.Tanh()))), (2,), "layer 0.body.0 is Tanh",
    ),
    "one logit": (nn.Sequential(nn.Linear(2, 1)), (2,), "has one output"),
    "no logits": (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (2,), "must end in a Linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name):
    module, shape, message = REFUSED[name]
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d) and layer.eps == 0.0:
            layer.running_var.zero_()
    with pytest.raises(ValueError, match=message):
        from_torch(module.eval(), shape)


def test_training_mode_and_bad_weights_are_refused():
    module = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="training mode"):
        from_torch(module.train(), (2,))
    module[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\) has NaN"):
        from_torch(module.eval(), (2,))
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    module[1].running_mean[0] = float("inf")
    with pytest.raises(ValueError, match=r"layer 1 \(BatchNorm1d\) has .* NaN or infinite"):
        from_torch(module, (2,))
    module[1].train()
    with pytest.raises(ValueError, match=r"training mode .submodule '1'.*eval"):
        from_torch(module, (2,))


def test_margin_rows_by_hand():
    assert margin_rows(1, 3).tolist() == [[-1, 1, 0], [0, 1, -1]]
    assert margin_rows(1, 3, [2]).tolist() == [[0, 1, -1]]


def test_a_layer_that_stands_twice_is_read_twice():
    relu, same = nn.ReLU(), nn.Linear(2, 2)
    network = from_torch(nn.Sequential(same, relu, same, relu, nn.Linear(2, 2)).eval(), (2,))
    assert [type(s).__name__ for s in network.steps] == ["Affine", "ReLU"] * 2 + ["Affine"]


def test_batch_norm_and_pooling_join_the_affine_step_beside_them():
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 3), nn.BatchNorm1d(3),
    ).eval()  # fmt: skip
    network = from_torch(module, (1, 6, 6))
    assert [type(step).__name__ for step in network.steps] == ["Affine", "ReLU", "Affine"]
    assert network.steps[0].weight.size == 9 * 32  # as sparse as the convolution


def test_a_pooled_map_is_not_multiplied_into_the_convolution_behind_it():
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3)]
    module = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    network = from_torch(module, (1, 16, 16))
    kinds = ["Affine", "ReLU", "Affine", "Affine", "ReLU", "Affine"]
    assert [type(step).__name__ for step in network.steps] == kinds
    random = np.random.default_rng(0)
    x = random.random(256)
    box = Box(x - 0.05, x + 0.05)
    boxes = network_bounds(network, box)
    points = x + 0.05 * random.uniform(-1, 1, (500, 256))
    for output, bounds in zip(network.outputs(points), boxes, strict=True):
        assert (bounds.lower <= output).all()
        assert (output <= bounds.upper).all()


def test_a_skip_passes_the_units_of_its_block_as_it_is():
    network = from_torch(nn.Sequential(nn.ReLU(), block(3), nn.Linear(3, 2)).eval(), (3,))
    first, relu, second = network.steps[1:4]
    assert first.copies[0].tolist() == [2, 3, 4]
    assert first.copies[1].tolist() == [0, 1, 2]
    assert relu.size == 5
    assert (second.weight[:, 2:] == np.eye(3)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_a_skip_carries_is_never_an_open_unit(seed):
    """Its lower bound is 0 exactly, also under interval arithmetic that is rounded outward."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = architectures.cifar_resnet(2).eval()
    network = from_torch(module, (3, 32, 32))
    center = np.random.default_rng(seed).random(3072)
    box = Box(center - 0.02, center + 0.02)
    boxes = network_bounds(network, box)
    seen = 0
    for k, step in enumerate(network.steps[:-1]):
        if isinstance(step, Affine) and k:
            copied, inputs = step.copies
            assert (boxes[k].lower[copied] == boxes[k - 1].lower[inputs]).all()
            assert (boxes[k].lower[copied] >= 0).all()
            seen += len(copied)
    relus = sum(step.size for step in network.steps if isinstance(step, ReLU))
    assert seen == (2 + 4) * 64 // 2
    assert unstable_units(network, box, boxes) < relus - seen


def test_a_shortcut_of_stride_2_carries_only_what_it_reads():
    module = architectures.cifar_resnet(2).eval()
    network = from_torch(module, (3, 32, 32))
    assert [s.size for s in network.steps if isinstance(s, ReLU)] == [512, 384, 256, 192, 128, 100]


@pytest.mark.parametrize("seed", range(24))
def test_folded_layers_agree_with_torch_and_bound_every_pattern(seed):
    module, shape = folded_network(seed)
    network = from_torch(module, shape)
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (10, *shape))
    single = module(torch.from_numpy(x).float()).double().numpy()
    assert network.forward(x.reshape(10, -1)) == pytest.approx(single, abs=1e-4)
    double = module.double()(torch.from_numpy(x)).numpy()
    assert network.forward(x.reshape(10, -1)) == pytest.approx(double, abs=1e-12, rel=1e-12)
    box = Box(x[0].reshape(-1) - 0.3, x[0].reshape(-1) + 0.3)
    lower, upper = box.lower.reshape(shape), box.upper.reshape(shape)
    exact = smallest_module_margins(module, 0, lower, upper)
    rows = margin_rows(0, network.classes)
    boxes = network_bounds(network, box)
    assert (rows_lower_bound(network, boxes, box, rows) <= exact + 1e-9).all()
    points = box.lower + (box.upper - box.lower) * random.random((200, box.lower.size))
    for output, bounds in zip(network.outputs(points), boxes, strict=True):
        assert (bounds.lower <= output + 1e-12).all()
        assert (output <= bounds.upper + 1e-12).all()
