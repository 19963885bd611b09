"""Write a trained network as ONNX or as PyTorch's exported program, checked on a real image."""

import argparse
from pathlib import Path

from pipeline.entry import run
from pipeline.predict import MODEL


def main() -> None:
    """Export what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.export", description=__doc__)
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--format", required=True, choices=("onnx", "torch"), help="torch: .pt2")
    parser.add_argument("--out", type=Path, help="file (default: model.onnx or model.pt2)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="take this size only (default: any)"
    )
    parser.add_argument(
        "--image", type=Path, help="the image of the check (default: matplotlib's photograph)"
    )
    given = parser.parse_args()

    from pipeline.datasets.images import read_image
    from pipeline.prediction.export import FORMATS, export
    from pipeline.prediction.photograph import photograph
    from pipeline.prediction.trained import find_trained

    out = given.out or Path(f"model{FORMATS[given.format]}")
    image = photograph() if given.image is None else read_image(given.image)
    size = None if given.size is None else (given.size[0], given.size[1])
    print(export(find_trained(given.model), given.format, out, image, size))


def command() -> None:
    """The installed command."""
    run(main)


if __name__ == "__main__":
    command()
