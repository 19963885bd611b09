"""Read MATLAB's files (version 5, as SBD and PASCAL-Part come)."""

from pathlib import Path
from typing import Any

from scipy.io import loadmat

from pipeline.errors import UserError


def read_matlab(path: Path, variable: str) -> Any:
    """The one struct that a variable holds; its fields are read by name.

    Raises:
        UserError: missing, damaged, or without this variable.
    """
    try:
        with open(path, "rb") as file:
            content = loadmat(file, variable_names=[variable])
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing") from error
    except Exception as error:  # scipy answers a damaged file with whatever breaks first
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: truncated or no MATLAB file ({reason}); get it again") from error
    struct = content.get(variable)
    if struct is None or struct.size != 1 or struct.dtype.names is None:
        raise UserError(f"{path}: must hold one struct {variable}; get the right file")
    return struct.ravel()[0]
