from typing import Any

import numpy as np
import numpy.typing as npt

# Opaque: a capsule.
Field = Any

def instruction_sets() -> list[str]: ...
def prepare(
    image: npt.NDArray[np.uint8],
    height: int,
    width: int,
    sigma_alpha: float,
    sigma_beta: float,
    sigma_gamma: float,
    symmetric: bool,
    cell: int,
    instruction_set: str,
    /,
) -> Field: ...
def infer_labels(
    field: Field,
    maps: npt.NDArray[np.float32],
    classes: int,
    w1: float,
    w2: float,
    iterations: int,
    leave_out: float,
    out: npt.NDArray[np.uint8],
    /,
) -> None: ...
def infer_probabilities(
    field: Field,
    maps: npt.NDArray[np.float32],
    classes: int,
    w1: float,
    w2: float,
    iterations: int,
    leave_out: float,
    out: npt.NDArray[np.float32],
    /,
) -> None: ...
