"""The table of experiments on CIFAR-10, with the settings of the reference run.

They were chosen on the held-out training images; the paper's own are the defaults of the recipes.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from robustlib.features.experiments import Experiment
from robustlib.features.training import Schedule

STANDARD = Schedule(epochs=8, precision="bfloat16")
ROBUST = Schedule(epochs=6, reach=0, eps=0.5, precision="bfloat16")
STUDENT = replace(STANDARD, rate=0.2, whiten=True)
WRONG = replace(STUDENT, average=0.5)
FAST: dict[str, Any] = {"precision": "bfloat16", "part": 1024}
Row = functools.partial(Experiment, architecture="pooled_resnet")


def mislabeled(name: str, recipe: str, eps: float, **student: Any) -> Experiment:
    """A student on D̂_rand or D̂_det of the standard network.

    Each step is along the gradient at a moved copy: the student sees moved images.
    """
    build = {"eps": eps, "steps": 10, "step_size": eps / 5, "copies": 1, "reach": 4, **FAST}
    return Row(name, replace(WRONG, **student), 45_000, recipe, "standard", build, attack=False)


CORE = {
    row.name: row
    for row in (
        Row("standard", STANDARD),
        Row("robust", ROBUST),
        Row(
            "robust_dataset",
            replace(STANDARD, epochs=10),
            25_000,
            "robust",
            "robust",
            {"steps": 22, "step_size": 2.0, "decay": True, **FAST},
        ),
        Row(
            "nonrobust_dataset",
            replace(STANDARD, whiten=True, reach=None),
            25_000,
            "nonrobust",
            "standard",
            {"steps": 16, "step_size": 0.45, "decay": True, **FAST},
        ),
        mislabeled("mislabeled_random_1", "random", 1.0, blur=0.6),
        mislabeled("mislabeled_random", "random", 0.5),
        mislabeled("mislabeled_deterministic_1", "deterministic", 1.0, epochs=6, blur=0.3),
        mislabeled("mislabeled_deterministic", "deterministic", 0.5, epochs=6),
        Row("random_labels", replace(STUDENT, epochs=3), 25_000, labels="random", attack=False),
    )
}

# One seed each: what the paper's appendix and the discussion that followed ask for.
OTHERS = ("slim_vgg", "slim_plain", "slim_dense", "slim_patches", "slim_shallow")
EXTRA = {
    row.name: row
    for row in (
        # Figure 3: the source's own architecture, on a part of the images.
        Row("half", replace(STANDARD, epochs=10), 25_000),
        # Table 7: the same recipes, started from noise.
        replace(
            CORE["robust_dataset"],
            name="robust_dataset_noise",
            build={**CORE["robust_dataset"].build, "start": "noise"},
        ),
        replace(
            CORE["nonrobust_dataset"],
            name="nonrobust_dataset_noise",
            build={**CORE["nonrobust_dataset"].build, "start": "noise"},
        ),
        # The other norm: adversarial training in l∞.
        Row("robust_inf", replace(ROBUST, eps=4 / 255, norm="inf")),
        # What whitening does: the students without it.
        *(
            replace(
                CORE[name], name=f"{name}_raw", student=replace(CORE[name].student, whiten=False)
            )
            for name in ("mislabeled_deterministic", "mislabeled_random")
        ),
        # Table 9, and Goh's question how much of the wrong labels robust features can tell.
        replace(
            CORE["mislabeled_deterministic"], name="deterministic_from_robust", teacher="robust"
        ),
        replace(CORE["mislabeled_random"], name="random_from_robust", teacher="robust"),
        # Wallace: learning from the errors of a network that was hardly trained.
        Row("early", replace(STANDARD, epochs=2), attack=False),
        Row("errors", replace(STUDENT, epochs=14), recipe="errors", teacher="early", attack=False),
        # Figure 3: other architectures, on the images and on the same wrong labels.
        *(
            Experiment(f"{a}_standard", STUDENT, 30_000, attack=False, architecture=a)
            for a in OTHERS
        ),
        *(
            replace(CORE["mislabeled_random_1"], name=f"{a}_random_1", architecture=a)
            for a in OTHERS
        ),
        # Nakkiran: perturbations that another network does not notice are no features.
        replace(
            CORE["mislabeled_deterministic_1"],
            name="bugs",
            build={**CORE["mislabeled_deterministic_1"].build, "keep": ["slim_vgg_standard"]},
        ),
    )
}
EXPERIMENTS = {**CORE, **EXTRA}
