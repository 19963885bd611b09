"""What the benchmarks share that run contestants in turn, each in a process of its own."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.entry import SAID_TO_TORCH

#: Of a contestant in one round: seconds of the clock and of processors an image, peak MiB, mIoU.
Result = dict[str, float]


def add_options(parser: argparse.ArgumentParser, contestants: Sequence[str]) -> None:
    """Those that every race has."""
    parser.add_argument("folder", type=Path, help="for downloads, raw and prepared data")
    parser.add_argument("--set", dest="set", default="voc2012-subset", help="a manifest's name")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, help="of the network; all processors")
    parser.add_argument("--weights", help="as model.weights; random")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=contestants, help="repeatable")
    parser.add_argument("--contestant", choices=contestants, help=argparse.SUPPRESS)


def race(
    module: str,
    options: argparse.Namespace,
    contestants: Sequence[str],
    about: str,
    contest: Callable[[argparse.Namespace], None],
) -> dict[str, list[Result]]:
    """Start this program once for each contestant and round, in turn; or be the one asked for.

    Args:
        module: the program's.
        options: of `add_options`.
        contestants: their names; those that are the project's begin with "ours".
        about: what is run, for the line above the table.
        contest: does it, and prints the `Result` as JSON in its last line.

    Returns:
        Contestant -> what it found in each round; nothing from one that is asked for.
    """
    if options.contestant:
        if not options.contestant.startswith("ours"):
            for name in SAID_TO_TORCH:  # before it is imported: no other loop does
                os.environ.pop(name, None)
        contest(options)
        return {}
    prepared(options)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    print(f"DeepLabv3+ {options.backbone}, {about}, {options.rounds} rounds, {load}", flush=True)
    found: dict[str, list[Result]] = {name: [] for name in options.only or _able(contestants)}
    for seed in range(options.rounds):
        for name, results in found.items():
            command = [sys.executable, "-m", module, *sys.argv[1:]]
            command += ["--contestant", name, "--seed", str(seed)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results.append(json.loads(told.splitlines()[-1]))
            done = ", ".join(f"{key} {value:.2f}" for key, value in results[-1].items())
            print(f"round {seed + 1}, {name}: {done}", file=sys.stderr, flush=True)
    return found


def _able(contestants: Sequence[str]) -> list[str]:
    """Those without bfloat16, where it is computed number by number; all of them elsewhere."""
    import torch

    from pipeline.models.processor import lacks_bfloat16

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if not lacks_bfloat16(torch.device(kind)):
        return list(contestants)
    print("bf16: left out, this processor has no arithmetic for it", file=sys.stderr, flush=True)
    return [name for name in contestants if "bf16" not in name]


def table(found: dict[str, list[Result]]) -> str:
    """Medians over the rounds, and ratios round by round to the first contestant's."""
    heads = ("images/s", "x wall", "x CPU", "CPU s", "MiB", "x MiB")
    first = next(iter(found.values()))
    lines = [f"{'':20}{''.join(f'{head:>9}' for head in heads)}"]
    return "\n".join([*lines, *(f"{n:20}{_line(results, first)}" for n, results in found.items())])


def _line(results: list[Result], first: list[Result]) -> str:
    def median(key: str) -> float:
        return statistics.median(result[key] for result in results)

    def ratio(key: str) -> float:
        pairs = zip(first, results, strict=True)
        return statistics.median(one[key] / other[key] for one, other in pairs)

    return (
        f"{1 / median('wall'):9.2f}{ratio('wall'):9.2f}{ratio('cpu'):9.2f}{median('cpu'):9.2f}"
        f"{median('mib'):9.0f}{1 / ratio('mib'):9.2f}"
    )


def prepared(options: argparse.Namespace) -> Path:
    """The training-ready set, made by the project's own stages where it is not there."""
    from pipeline.datasets.fetch import fetch
    from pipeline.datasets.manifest import load_manifest
    from pipeline.datasets.prepare import prepare

    manifest, out = load_manifest(options.set), options.folder / "prepared" / options.set
    if not (out / "dataset.json").is_file():
        fetch(manifest, options.folder / "raw", downloads=options.folder / "downloads")
        prepare(manifest, options.folder / "raw" / options.set, out)
    return Path(out)


def resident(key: str) -> float:
    """VmRSS or VmHWM of this process, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def busy() -> float:
    """Seconds that the processor worked for this process and its children."""
    import psutil

    spent = resource.getrusage(resource.RUSAGE_SELF)
    total = spent.ru_utime + spent.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total
