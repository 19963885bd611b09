"""What every entry point shares: how it ends when something is wrong."""

import errno
import faulthandler
import os
import sys
from collections.abc import Callable

from pipeline.errors import UserError

# Hydra prints errors in its own words unless told to raise them; `explain` says them in ours.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")

#: What has to be said before torch is imported.
SAID_TO_TORCH = {
    # Maps lie in pages of 2 MiB where the system has them: fewer to ask for and to look up.
    "THP_MEM_ALLOC_ENABLE": "1",
}
for _name, _value in SAID_TO_TORCH.items():
    os.environ.setdefault(_name, _value)


def run(main: Callable[[], None]) -> None:
    """Call `main`; a user's mistake ends in one line on stderr and exit code 1.

    Where a library crashes, the lines of Python it was called from are on stderr.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(2)
    try:
        main()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "the project's disk"
        fail(f"{where}: the disk is full; make room and run the same command again")
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("hydra", "omegaconf"):
            raise
        from pipeline.composition import explain

        fail(str(explain(error)))


def fail(message: str, code: int = 1) -> None:
    """Print the one line and leave."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
