"""A question about an input → a verdict that can be trusted.

The package is called ``verification`` because its main function is ``verify``: a module of the
same name could not be reached beside it.
"""

from robustlib.verification.cascade import verify
from robustlib.verification.distortion import Distortion, min_distortion
from robustlib.verification.distortions import min_distortions
from robustlib.verification.radius import certified_radius
from robustlib.verification.result import Verdict, Verification

__all__ = [
    "Distortion",
    "Verdict",
    "Verification",
    "certified_radius",
    "min_distortion",
    "min_distortions",
    "verify",
]
