"""Print what every network of the papers costs and sees, beside the papers' figures.

Nothing is computed and nothing downloaded: networks of shapes without values are counted.
"""

import argparse

from pipeline.entry import run
from pipeline.errors import UserError

#: Characters that the widest table takes.
WIDTH = 160


def main() -> None:
    """Count the catalogue's networks and print the tables."""
    options = _options()

    from rich.console import Console
    from rich.progress import track

    from pipeline.config.rules import one_of
    from pipeline.models.weights import known_weights
    from pipeline.networks.catalogue import catalogue
    from pipeline.networks.overview import measured, rows_at
    from pipeline.networks.tables import as_json, as_markdown, as_tables

    rows = catalogue()
    if options.paper is not None:
        one_of("--paper", options.paper, list(dict.fromkeys(row.paper for row in rows)))
        rows = [row for row in rows if row.paper == options.paper]
    rows = rows_at(rows, options.size, options.output_stride)
    progress = Console(stderr=True)
    entries = list(
        track(
            measured(rows, options.size),
            description="counting",
            total=len(rows),
            console=progress,
            transient=True,
            disable=not progress.is_terminal,
        )
    )
    if options.json:
        print(as_json(entries, options.size))
    elif options.markdown:
        print(as_markdown(entries, known_weights(), options.size), end="")
    else:
        # Figures are not cut where a terminal is narrow; a file has no width of its own.
        console = Console(width=max(WIDTH, Console().width))
        console.print(as_tables(entries, known_weights(), options.size))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.networks", description=__doc__, exit_on_error=False
    )
    parser.add_argument("--size", type=int, default=513, help="pixels a side (the papers': 513)")
    parser.add_argument("--output-stride", type=int, help="of all networks that can have it")
    parser.add_argument("--paper", help="v1, v2, v3, v3+, MobileNetV2 or others alone")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="unrounded, with all settings")
    form.add_argument("--markdown", action="store_true", help="as docs/networks.md has it")
    try:
        return parser.parse_args()
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    run(main)
