"""Where things lie: derived from this file, never from the working directory."""

import os
from pathlib import Path

#: The project's root. A stage run by DVC works in its working directory, which in
#: `dvc exp run --temp` is a copy of the project.
PROJECT = Path(__file__).resolve().parent.parent

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
