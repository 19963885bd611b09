"""The fully connected CRF (Krähenbühl and Koltun, NIPS 2011; v1, section 2.3), fast.

`native/` is the C++ code, `portable.py` the same in numpy where no compiler was at hand, `tiled.py`
exact inference on a GPU, and `brute_force.py` what they all are held against. Only `tiled.py` needs
torch.
"""

from pipeline.inference.dense_crf.brute_force import brute_force
from pipeline.inference.dense_crf.field import (
    Backend,
    DenseCrf,
    native_available,
    refine,
    refine_labels,
)
from pipeline.inference.dense_crf.settings import DenseCrfSettings, Mode, Normalisation

__all__ = [
    "Backend",
    "DenseCrf",
    "DenseCrfSettings",
    "Mode",
    "Normalisation",
    "brute_force",
    "native_available",
    "refine",
    "refine_labels",
]
