"""Show MLflow's dashboard of the variants: `make ui`."""

import argparse
import os

from pipeline.entry import run


def main() -> None:
    """Serve it until Ctrl-C, or say where the server of MLFLOW_TRACKING_URI shows it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.ui", description=__doc__)
    port = os.environ.get("PORT", "5000")
    parser.add_argument("--port", type=int, default=port, help="on 127.0.0.1 (%(default)s)")
    given = parser.parse_args()

    from pipeline.tracking.serve import serve

    serve(given.port)


if __name__ == "__main__":
    run(main)
