"""Robust and non-robust features: the data sets of Ilyas et al. (2019), from any trained network.

Four functions take a trained network, images and labels, and write a new data set to a folder:

* :func:`robust_dataset` (D̂_R) and :func:`nonrobust_dataset` (D̂_NR) change the *images*, so that
  only what one network represents of them still tells the label;
* :func:`mislabeled_random` (D̂_rand) and :func:`mislabeled_deterministic` (D̂_det) change the
  *labels*, and the images so slightly that only a network notices.

:func:`load` reads such a folder. A call that was interrupted goes on where it stopped, and a
half-written set is refused. :func:`usefulness` and :func:`robust_usefulness` say how well single
features tell the label, with and without an adversary.

The experiments of the paper on CIFAR-10 are a table (``catalog``), run by
``python -m robustlib.features NAME …``; ``known_truth`` has them in small, on drawn images whose
robust and non-robust feature were planted.

>>> from robustlib import features
>>> path = features.robust_dataset(net, x, y, "sets/robust")  # doctest: +SKIP
>>> x_robust, y_robust, about = features.load(path)  # doctest: +SKIP
>>> about["report"]["relative_distance"]  # how near the representations came  # doctest: +SKIP
0.15
"""

from robustlib.features.files import DatasetError, load
from robustlib.features.inversion import nonrobust_dataset, robust_dataset
from robustlib.features.mislabeled import mislabeled_deterministic, mislabeled_random
from robustlib.features.usefulness import robust_usefulness, usefulness

__all__ = [
    "DatasetError",
    "load",
    "mislabeled_deterministic",
    "mislabeled_random",
    "nonrobust_dataset",
    "robust_dataset",
    "robust_usefulness",
    "usefulness",
]
