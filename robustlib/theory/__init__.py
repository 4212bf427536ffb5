"""Models simple enough for closed forms, each beside the simulation that checks it.

``gaussian`` holds the closed forms of the Gaussian model of Ilyas et al. (2019), section 4;
``simulation`` estimates the same quantities from samples; ``adversarial_fit`` trains the model
adversarially, one exact worst case per sample.

``worst_points`` and ``worst_margins`` attack a linear classifier exactly, ``robust_logistic``
trains one against that attack.

The other models are used by module: ``tsipras`` and ``tsipras_svm`` are the robust and the weak
features of Tsipras et al. (2019); ``schmidt_gaussian`` and ``schmidt_bernoulli`` the two models in
which Schmidt et al. (2018) count samples. Their simulations take generators of numpy.
"""

from robustlib.theory import schmidt_bernoulli, schmidt_gaussian, tsipras, tsipras_svm
from robustlib.theory.adversarial_fit import GaussianFit, adversarial_fit, worst_perturbation
from robustlib.theory.curves import SampleSizeCurve
from robustlib.theory.gaussian import (
    adversarial_vulnerability,
    alignment,
    average_budget,
    classifier_weights,
    least_vulnerable_covariance,
    linear_accuracy,
    penalty_for_budget,
    robust_attack,
    robust_covariance,
    worst_alignment,
    worst_mean,
)
from robustlib.theory.linear import dual_norm, worst_margins, worst_points
from robustlib.theory.logistic import LogisticFit, robust_logistic
from robustlib.theory.simulation import (
    MonteCarlo,
    sample,
    simulate_correct,
    simulate_vulnerability,
)

__all__ = [
    "GaussianFit",
    "LogisticFit",
    "MonteCarlo",
    "SampleSizeCurve",
    "adversarial_fit",
    "adversarial_vulnerability",
    "alignment",
    "average_budget",
    "classifier_weights",
    "dual_norm",
    "least_vulnerable_covariance",
    "linear_accuracy",
    "penalty_for_budget",
    "robust_attack",
    "robust_covariance",
    "robust_logistic",
    "sample",
    "schmidt_bernoulli",
    "schmidt_gaussian",
    "simulate_correct",
    "simulate_vulnerability",
    "tsipras",
    "tsipras_svm",
    "worst_alignment",
    "worst_margins",
    "worst_mean",
    "worst_perturbation",
    "worst_points",
]
