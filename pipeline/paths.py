"""Where things lie: derived from this file; from the working directory only if it is installed."""

import os
from pathlib import Path

#: What the code lies in: the checkout, or site-packages.
SOURCE = Path(__file__).resolve().parent.parent


def _project() -> Path:
    """The checkout that the code is in; of an installed package, the one that is worked in."""
    here = Path.cwd()
    places = (SOURCE, here, *here.parents)
    return next((one for one in places if (one / "params.yaml").is_file()), here)


#: The project's root. A stage run by DVC works in its working directory, which in
#: `dvc exp run --temp` is a copy of the project.
PROJECT = _project()

CONF = PROJECT / "conf"
MANIFESTS = PROJECT / "data" / "manifests"
RAW = PROJECT / "data" / "raw"
PREPARED = PROJECT / "data" / "prepared"
#: Images kept decoded; nothing depends on it.
DECODED = PROJECT / "data" / "decoded"
PREVIEWS = PROJECT / "data" / "previews"
RUNS = PROJECT / "runs"
BUILD = PROJECT / "build" / "configs"
REPORT = PROJECT / "report"

#: The root that outlives temporary copies: `DVC_ROOT` inside DVC experiments.
HOME = Path(os.environ.get("DVC_ROOT", PROJECT))
#: Archives, downloaded or brought by the user: there once, for the copies of experiments too.
DOWNLOADS = HOME / "data" / "downloads"
