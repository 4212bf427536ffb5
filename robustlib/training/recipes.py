"""The table of recipes: how each of the zoo's own networks is trained. A new one is one row."""

from __future__ import annotations

import math
from typing import Any

from robustlib import data
from robustlib.training.examples import Examples
from robustlib.training.recipe import Recipe


def _digits(name: str, **settings: Any) -> Recipe:
    return Recipe(name, data.digits, epochs=60, **settings)


def _mnist(name: str, *, batch: int = 128, **settings: Any) -> Recipe:
    return Recipe(name, data.mnist, batch=batch, held_out=5000, **settings)


def _cifar(name: str, **settings: Any) -> Recipe:
    return Recipe(name, data.cifar10, held_out=5000, mirror=True, **settings)


def _lenet(name: str, **settings: Any) -> Recipe:
    """By Caffe's solver, but for the rate: it falls to zero."""
    return _mnist(name, batch=64, momentum=0.9, weight_decay=5e-4, **settings)


# The two searches of Bastani et al., each for at least 5000 examples a round.
_SEARCHES: dict[str, dict[str, Any]] = {
    "cegar": {"alpha": 3.0, "limit": 60 / 255, "images": 9500},
    "lbfgs": {"alpha": 0.15, "images": 5500},
}


def _fine_tuned(method: str, rounds: int) -> Recipe:
    """Trained on at a tenth of the rate, with the examples of all rounds so far."""
    sources = ("lenet", *(f"lenet_{method}_{k}" for k in range(1, rounds)))
    return _lenet(
        f"lenet_{method}_{rounds}",
        start=sources[-1],
        epochs=3,
        learning_rate=0.001,
        examples=Examples(sources, method, **_SEARCHES[method]),
    )


_PGD: dict[str, Any] = {"method": "adversarial", "eps": 0.1, "attack_steps": 4}
_BOUNDS: dict[str, Any] = {
    "method": "provable",
    "epochs": 9,
    "warm_up": 1,
    "ramp": 3,
    "crown_targets": 1,
    "learning_rate": 2e-3,
}
_WIDER: dict[str, Any] = {  # from a network that has such bounds at a smaller radius
    "method": "provable",
    "epochs": 4,
    "ramp": 1,
    "kappa": (0.5, 0.5),
    "beta": (0.0, 0.0),
    "learning_rate": 1.5e-3,
}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        _digits("digits_mlp", method="adversarial", eps=0.1, ramp=20, l1=1e-3),
        _digits("digits_mlp_standard"),
        _digits("digits_cnn", method="adversarial", eps=0.1, ramp=20, l1=1e-3),
        _digits("digits_cnn_noise", noise=0.3),
        _digits("digits_cnn_shift", shift=1),
        _digits("digits_cnn_fgsm", method="adversarial", attack="fgsm", eps=0.1, ramp=20),
        _digits("digits_cnn_r_fgsm", method="adversarial", attack="r_fgsm", eps=0.1, ramp=20),
        _digits(
            "digits_cnn_ensemble",
            method="adversarial",
            attack="fgsm",
            clean=0.5,
            sources=("digits_mlp_standard", "digits_cnn_noise"),
            eps=0.1,
        ),
        _digits("digits_cnn_ibp", method="provable", eps=0.1, warm_up=2, ramp=30, beta=(0.0, 0.0)),
        _digits(
            "digits_cnn_crown_ibp",
            method="provable",
            eps=0.1,
            warm_up=2,
            ramp=30,
            beta=(1.0, 1.0),
            learning_rate=0.01,
        ),
        _mnist("mlp_2x20", epochs=20),
        _mnist("mlp_3x20", epochs=20),
        _lenet("lenet", epochs=11, learning_rate=0.01),
        *(_fine_tuned(method, rounds) for method in _SEARCHES for rounds in (1, 2)),
        _mnist("adv_mlp_b", **_PGD, ramp=3, epochs=12, learning_rate=2e-3, l1=2e-4),
        _mnist("adv_cnn_a", **_PGD, ramp=2, epochs=7, learning_rate=2e-3, l1=1e-4),
        _mnist(
            "adv_cnn_03",
            method="adversarial",
            eps=0.32,  # with more steps and epochs than before; their shares in the gain are open
            recorded_eps=0.3,
            attack_steps=8,
            ramp=3,
            epochs=18,
            learning_rate=2e-3,
            schedule="one_cycle",
            precision="bfloat16",
        ),
        _mnist("crown_ibp_cnn_a_02", eps=0.2, **_BOUNDS),
        _mnist("crown_ibp_cnn_a_03", eps=0.3, start="crown_ibp_cnn_a_02", **_WIDER),
        _mnist("crown_ibp_cnn_a_04", eps=0.4, start="crown_ibp_cnn_a_03", **_WIDER),
        _cifar(
            "cifar_cnn_a",
            method="provable",
            eps=2 / 255,
            epochs=10,
            warm_up=4,
            ramp=2,
            beta=(1.0, 1.0),
            batch=64,
            learning_rate=1.5e-3,
        ),
        _cifar(
            "cifar_resnet",
            eps=8 / 255,
            batch=128,
            **(_BOUNDS | {"epochs": 16, "ramp": 4, "kappa": (1.0, 0.0)}),
        ),
        _cifar(
            "cifar_resnet_standard",
            epochs=12,
            batch=128,
            learning_rate=2e-3,
            warm_up=1,
            gain=math.sqrt(6),
            weight_decay=0.05,
        ),
        _cifar(
            "nin",
            epochs=18,
            batch=64,
            learning_rate=1e-3,
            schedule="one_cycle",
            gain=math.sqrt(6),
            weight_decay=0.05,
            shift=2,
            precision="bfloat16",
        ),
        _cifar(
            "nin_cegar_1",
            start="nin",
            epochs=2,
            batch=64,
            learning_rate=1e-4,
            weight_decay=0.05,
            shift=2,
            precision="bfloat16",
            examples=Examples(
                ("nin",), "cegar", alpha=3.0, limit=60 / 255, images=6200, solver="clarabel"
            ),
        ),
        Recipe("digits_linear", data.digits, epochs=40, batch=32, learning_rate=0.01),
        _mnist("mnist_linear", epochs=10, learning_rate=2e-3),
        _cifar("cifar_linear", epochs=12, batch=128, learning_rate=1e-3),
        _cifar("cifar_cnn_a_standard", epochs=20, batch=128, learning_rate=2e-3, weight_decay=0.05),
        Recipe(
            "toy",
            lambda split: data.toys.two_class(seed=("train", "test").index(split)),
            epochs=120,
            batch=16,
            learning_rate=0.03,
            weight_decay=0.01,
            seed=18,  # of 90 tried: at the chapter's marked point every effect can be seen
        ),
    )
}
