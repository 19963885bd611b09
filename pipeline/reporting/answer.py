"""The figures in sentences: the answer first, then what it does not say."""

from collections.abc import Sequence

from pipeline.evaluation.bootstrap import LEVEL
from pipeline.reporting.compare import (
    Headline,
    evaluation_of,
    headline,
    pareto_front,
    seed_spread,
)
from pipeline.reporting.load import MODES, DataSet, Variant
from pipeline.reporting.words import NBSP, listing, number, signed, signed_span, span

#: Parts of a sentence: (text, whether it is stressed).
Sentence = list[tuple[str, bool]]


def answer(variants: Sequence[Variant]) -> list[Sentence]:
    """The best variant, the costs that pay off, the CRF, and how far to trust the differences."""
    found = headline(variants)
    if found is None:
        return [[("No variant has been evaluated yet.", False)]]
    sentences = [_best(found), _highest(found), _front(variants), _crf(found), _trust(variants)]
    return [sentence for sentence in sentences if sentence]


def _best(found: Headline) -> Sentence:
    evaluation = found.evaluation
    parts: Sentence = [
        (found.best.name, True),
        (" has the highest mIoU" if found.next else " was evaluated alone: its mIoU", False),
        (f" on the {evaluation.split} split of {evaluation.dataset}", False),
        (f" ({number(evaluation.images, 0)} images): " if found.next else " is ", False),
        (f"{number(found.best.miou)}{NBSP}%", True),
        (" at a single scale without CRF", False),
    ]
    if found.next is None or found.lead is None:
        interval = evaluation.modes["single"].interval
        within = f" ({span(interval)} with {LEVEL:.0f}{NBSP}% confidence)" if interval else ""
        return [*parts, (f"{within}.", False)]
    if found.lead == 0:
        parts += [(", level with ", False), (found.next.name, True)]
    else:
        parts += [(f", {number(found.lead)} points above ", False), (found.next.name, True)]
        parts += _certainty(found)
    mine, other = evaluation.cost, evaluation_of(found.next).cost
    costs = []
    if found.gmacs is not None:
        costs.append(
            f"{number(found.gmacs)} times its GMACs "
            f"({number(mine.gmacs)} against {number(other.gmacs)})"
        )
    if found.milliseconds is not None:
        costs.append(
            f"{number(found.milliseconds)} times its time an image "
            f"({number(mine.ms_per_image)} against {number(other.ms_per_image)} ms)"
        )
    return [*parts, (f", at {listing(costs)}." if costs else ".", False)]


def _certainty(found: Headline) -> Sentence:
    """Where the lead lies, and whether other images of the same kind might turn it."""
    interval = found.lead_interval
    if interval is None:
        return []
    within = f" ({LEVEL:.0f}{NBSP}% confidence: {signed_span(interval)})"
    if interval.holds(0.0):
        return [(", ", False), ("a difference smaller than its uncertainty", True), (within, False)]
    return [(within, False)]


def _highest(found: Headline) -> Sentence:
    variant, mode = found.highest
    if mode == "single":
        return []
    figure = evaluation_of(variant).modes[mode].miou
    return [
        ("The highest figure of all modes is ", False),
        (f"{number(figure)}{NBSP}%", True),
        (", by ", False),
        (variant.name, True),
        (f" with {MODES[mode]}.", False),
    ]


def _front(variants: Sequence[Variant]) -> Sentence:
    """Who is worth its GMACs; said only where somebody is not."""
    found = headline(variants)
    compared = [v for v in variants if found and v.evaluation and v not in found.elsewhere]
    costs = [evaluation_of(variant).cost for variant in compared]
    if len(compared) < 3 or len({cost.size for cost in costs}) > 1:
        return []
    points = [(cost.gmacs, v.miou) for cost, v in zip(costs, compared, strict=True) if cost.gmacs]
    front = pareto_front(points)
    if len(points) < len(compared) or len(front) == len(compared):
        return []
    names = [compared[index].name for index in front]
    beaten = [v.name for v in compared if v.name not in names]
    return [
        ("By GMACs ", False),
        (listing(names), True),
        (" are the Pareto front" if len(names) > 1 else " is the Pareto front by itself", False),
        (
            f"; for {listing(beaten)} there is a variant that costs no more and scores higher.",
            False,
        ),
    ]


def _crf(found: Headline) -> Sentence:
    if found.crf_gains is None:
        return []
    least, most = (signed(gain) for gain in found.crf_gains)
    gains = most if least == most else f"{least} to {most}"
    names = [variant.name for variant in found.crf_uncertain]
    doubt = ""
    if len(names) == found.compared:
        doubt = ", which is smaller than its uncertainty"
    elif names:
        doubt = f"; for {listing(names)} that is smaller than its uncertainty"
    return [(f"The CRF changes mIoU by {gains} points{doubt}.", False)]


def _trust(variants: Sequence[Variant]) -> Sentence:
    """How large a difference must be to mean something; one seed cannot say."""
    found, spread = headline(variants), seed_spread(variants)
    if spread is not None:
        return [
            (
                f"{listing(spread[1])} differ in nothing but the seed, by up to "
                f"{number(spread[0])} points: a smaller difference may be chance.",
                False,
            )
        ]
    if found is None or found.next is None:
        return []
    seeds = f" (seed {found.seeds[0]})" if len(found.seeds) == 1 else ""
    return [
        (
            f"Each variant was trained once{seeds}, so the differences have no spread over "
            "trainings: a small one may be chance.",
            False,
        )
    ]


def remarks(variants: Sequence[Variant], data: DataSet | None) -> list[str]:
    """What keeps the variants from being compared on equal terms, a line each."""
    found, lines = headline(variants), []
    missing = [variant for variant in variants if variant.evaluation is None]
    if missing:
        states = listing([f"{variant.name} ({variant.state})" for variant in missing])
        lines.append(f"Without figures: {states}. Run dvc repro to complete them.")
    for variant in found.elsewhere if found else []:
        evaluation = evaluation_of(variant)
        lines.append(
            f"{variant.name} was evaluated on {number(evaluation.images, 0)} images of the "
            f"{evaluation.split} split of {evaluation.dataset}: other images or other classes, so "
            "it is not compared."
        )
    digests = {digest for v in variants if (digest := v.run.get("data_digest"))}
    if len(digests) > 1:
        lines.append("The variants were not all trained on the same state of the data.")
    elif data and data.digest and digests and data.digest not in digests:
        lines.append("The prepared data has changed since the variants were trained.")
    compared = [v for v in variants if v.evaluation and found and v not in found.elsewhere]
    costs = [evaluation_of(variant).cost for variant in compared]
    if len({cost.size for cost in costs}) > 1:
        lines.append("Costs were stated at different sizes, so they are not set in ratio.")
    elif len({cost.device for cost in costs}) > 1:
        lines.append("Times were taken on different devices, so they are not set in ratio.")
    return lines
