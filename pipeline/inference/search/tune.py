"""The stage `tune`: the CRF's settings as they are given, or searched on images held apart."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.config import Config, CrfConfig, SearchConfig
from pipeline.errors import UserError
from pipeline.files import whole_folder
from pipeline.inference.search.grid import Point, Trial, best, coarse_to_fine
from pipeline.inference.search.outcome import FOLDER, SURFACE, write_search, write_settings

if TYPE_CHECKING:
    from pipeline.inference.dense_crf import DenseCrfSettings, Mode
    from pipeline.inference.search.scoring import Scorer


def tune_run(config: Config, run_folder: Path, prepared: Path) -> str:
    """Write runs/<variant>/crf/: the settings that evaluation uses, and how they were found.

    The folder is written beside its place and renamed: a search that was stopped leaves nothing.
    What only a search needs is imported when there is one.

    Args:
        config: of which the sections crf, search and trainer, and evaluate.split, count.
        run_folder: runs/<variant>, with the network's logits.
        prepared: the folder of the training-ready set.

    Returns:
        One line for the terminal.

    Raises:
        UserError: the logits are missing or damaged, or there are too few images.
    """
    with whole_folder(run_folder / FOLDER) as folder:
        if config.search.images == 0:
            write_settings(folder, config.crf)
            return "the CRF as it is given (search.images=0)"
        return _line(_search(config, run_folder, prepared, folder))


def choose(ids: Sequence[str], config: Config) -> list[str]:
    """The images that the search sees, in the split's order.

    They come first by a hash of the seed and the id: so more of them hold the fewer, and an image
    that is added to the split changes little.

    Raises:
        UserError: none would be left to report on.
    """
    count, seed = config.search.images, config.search.seed
    if count >= len(ids):
        raise UserError(
            f"search.images={count}: {config.evaluate.split} has {len(ids)} images, and those that "
            f"the search sees are in no figure; take at most {len(ids) - 1}, better a third"
        )
    drawn = sorted(ids, key=lambda id: hashlib.sha256(f"{seed} {id}".encode()).digest())
    taken = set(drawn[:count])
    return [id for id in ids if id in taken]


def _search(config: Config, run_folder: Path, prepared: Path, folder: Path) -> dict[str, Any]:
    from pipeline.cores import core_count
    from pipeline.datasets.prepared import load_prepared
    from pipeline.inference.crf import releases_lock
    from pipeline.inference.logits import StoredLogits
    from pipeline.inference.search.scoring import Scorer, SingleScale
    from pipeline.inference.search.surface import draw_surface

    logits = StoredLogits(run_folder / "logits")
    apart = choose(logits.ids, config)
    workers = config.trainer.workers
    scorer = Scorer(
        load_prepared(prepared),
        apart,
        SingleScale(logits),
        core_count() if workers is None else workers,
        threads=releases_lock(_own(config.crf)),
    )
    without, trials = search(config, scorer)
    found = chosen(trials)
    write_settings(folder, dataclasses.replace(config.crf, **found.point._asdict()))
    summary = _summary(config, without, trials, found)
    write_search(folder, apart, trials, summary)
    title = f"CRF search on {len(apart)} images of {config.dataset} {config.evaluate.split}"
    draw_surface(trials, found, without, title, folder / SURFACE)
    return summary


def search(config: Config, scorer: "Scorer") -> tuple[float, list[Trial]]:
    """Score the network alone, the settings as given, and then coarse to fine.

    The first round's grid is scored on images of half the size first, which takes a quarter of the
    time; on real maps the two agree in their best settings. All else is scored as `crf.backend`
    says.

    Returns:
        mIoU without the CRF, and all trials; the first is of the given settings.

    Raises:
        UserError: all pixels of the images are void.
    """
    from pipeline.inference.progress import progress

    crf, rounds = config.crf, config.search.rounds
    axes = (config.search.w1, config.search.sigma_alpha, config.search.sigma_beta)
    given = Point(crf.w1, crf.sigma_alpha, crf.sigma_beta)
    with progress(config.trainer.progress_bar) as bar:

        def mious(name: str, settings: "Sequence[DenseCrfSettings]") -> list[float]:
            task = bar.add_task(f"{name}, {len(settings)} settings", total=len(scorer.ids))
            matrices = scorer.matrices(settings, lambda: bar.advance(task))
            return [matrix.miou() for matrix in matrices]

        def rough(points: Sequence[Point]) -> list[float]:
            return mious("the grid, roughly", [_settings(crf, p, "fast") for p in points])

        def score(points: Sequence[Point]) -> list[float]:
            return mious(next(names), [_settings(crf, point) for point in points])

        names = (f"round {number} of {rounds}" for number in range(1, rounds + 1))
        full = _settings(crf, given)
        none = dataclasses.replace(full, iterations=0)
        without, as_given = mious("none and given", [none, full])
        if math.isnan(without):
            raise UserError(
                f"search.seed={config.search.seed}: every pixel of the {len(scorer.ids)} images "
                "held apart is void; take another seed, or more search.images"
            )
        slow = _own(crf).backend == "lattice"
        trials = coarse_to_fine(axes, rounds, score, rough if slow else None)
    return without, [Trial(0, given, as_given), *trials]


def chosen(trials: Sequence[Trial]) -> Trial:
    """The best of the last round, whose centre is the best of those before; or what was given."""
    last = trials[-1].round
    return best([trial for trial in trials if trial.round in (0, last) and not trial.rough])


def _settings(crf: CrfConfig, point: Point, mode: "Mode | None" = None) -> "DenseCrfSettings":
    from pipeline.inference.dense_crf import DenseCrfSettings, Mode, Normalisation

    return DenseCrfSettings(
        *point,
        w2=crf.w2,
        sigma_gamma=crf.sigma_gamma,
        iterations=crf.iterations,
        normalisation=cast(Normalisation, crf.normalisation),
        mode=mode or cast(Mode, _own(crf).backend),
    )


def _own(crf: CrfConfig) -> CrfConfig:
    """Our own lattice in pydensecrf's place: nearly its labels, in a tenth of the time."""
    return dataclasses.replace(crf, backend="lattice") if crf.backend == "pydensecrf" else crf


def _summary(
    config: Config, without: float, trials: Sequence[Trial], found: Trial
) -> dict[str, Any]:
    given = trials[0]
    return {
        "split": config.evaluate.split,
        "images": config.search.images,
        "seed": config.search.seed,
        "settings_scored": len(trials),
        "miou_without_crf": without,
        "miou_given": given.miou,
        "miou_found": found.miou,
        "gain": found.miou - given.miou,
        "given": given.point._asdict(),
        "found": found.point._asdict(),
        "at_the_edge_of": edges(config.search, found.point),
    }


def _line(summary: dict[str, Any]) -> str:
    values = ", ".join(f"{key}={value:g}" for key, value in summary["found"].items())
    edges = " and ".join(f"search.{key}" for key in summary["at_the_edge_of"])
    return (
        f"mIoU on {summary['images']} images of {summary['split']} held apart: "
        f"{summary['miou_without_crf']:.2f} without the CRF, {summary['miou_given']:.2f} as given, "
        f"{summary['miou_found']:.2f} with {values}"
        + (f"; widen {edges}: the best value ends the range" if edges else "")
    )


def edges(search: SearchConfig, found: Point) -> list[str]:
    """The settings whose best value ends their range: beyond it may lie a better one."""
    return [
        key
        for key, value in found._asdict().items()
        if len(axis := getattr(search, key)) > 1 and value in (axis[0], axis[-1])
    ]
