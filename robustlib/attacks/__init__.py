"""Attacks: search for a small change of an input that changes the label.

An attack proves nothing when it fails. What it returns is inside the ball and the box exactly, in
the floating-point type of the input, and the model, its mode and its parameters are left as found.
What happens to an image does not depend on the other images of the batch, but for rounding.

========================= =================================================================
one step                  `fgsm`, `r_fgsm`
inside a ball             `pgd`, `apgd`
distance and penalty      `penalty`
nearest                   `carlini_wagner`, `lbfgs`
few pixels                `one_pixel`
rotation and translation  `spatial_grid`, `spatial_random`
seen from many sides      `sticker`, judged by `fooled_views`; `Views` says from which
scores only               `square`
labels only               `hop_skip_jump`
another model             `transfer`
all of one ball           `evaluate`: robust accuracy, for reports
what counts as success    `fooled`
========================= =================================================================

Most return the points, a tensor like the input; where there is more to tell, a small class.
"""

from robustlib.attacks.auto_pgd import apgd
from robustlib.attacks.carlini import carlini_wagner
from robustlib.attacks.decision_based import hop_skip_jump
from robustlib.attacks.evaluation import Evaluation, evaluate
from robustlib.attacks.few_pixels import one_pixel
from robustlib.attacks.gradient import pgd
from robustlib.attacks.lbfgs import lbfgs
from robustlib.attacks.penalties import penalty
from robustlib.attacks.queries import Queried
from robustlib.attacks.score_based import square
from robustlib.attacks.single_step import fgsm, r_fgsm
from robustlib.attacks.spatial import Spatial, spatial_grid, spatial_random
from robustlib.attacks.stickers import Views, fooled_views, sticker
from robustlib.attacks.success import fooled
from robustlib.attacks.transferability import Transfer, transfer

__all__ = [
    "Evaluation",
    "Queried",
    "Spatial",
    "Transfer",
    "Views",
    "apgd",
    "carlini_wagner",
    "evaluate",
    "fgsm",
    "fooled",
    "fooled_views",
    "hop_skip_jump",
    "lbfgs",
    "one_pixel",
    "penalty",
    "pgd",
    "r_fgsm",
    "spatial_grid",
    "spatial_random",
    "square",
    "sticker",
    "transfer",
]
