"""Say what `dvc repro` will do: which variants train, evaluate or stay, why, and at what cost.

Nothing is run and nothing written.
"""

import argparse
import json

from pipeline.entry import run
from pipeline.paths import PROJECT


def main() -> None:
    """Print the plan for the variants that the command line names, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan", description=__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="default: all")
    parser.add_argument("--json", action="store_true", help="unrounded, with every reason")
    options = parser.parse_args()

    from rich.console import Console

    from pipeline.sweeping.outlook import look_ahead
    from pipeline.sweeping.table import as_table, as_values

    outlook = look_ahead(PROJECT, options.variants)
    if options.json:
        print(json.dumps(as_values(outlook), indent=2, ensure_ascii=False))
    else:
        Console().print(as_table(outlook))


if __name__ == "__main__":
    run(main)
