"""Attacks: search for a small change of an input that changes the label.

An attack proves nothing when it fails. What it returns is inside the ball and the box exactly, in
the floating-point type of the input, and the model, its mode and its parameters are left as found.
"""

from robustlib.attacks.gradient import fgsm, pgd

__all__ = ["fgsm", "pgd"]
