"""Robust and non-robust features: the data sets of Ilyas et al. (2019), from any trained network.

>>> from robustlib import features
>>> path = features.robust_dataset(net, x, y, "sets/robust")  # doctest: +SKIP
>>> x_robust, y_robust, about = features.load(path)  # doctest: +SKIP
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
