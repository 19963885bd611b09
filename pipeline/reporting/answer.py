"""The figures in sentences: the answer first, then what it does not say."""

from collections.abc import Sequence

from pipeline.datasets.prepared import Prepared
from pipeline.evaluation.bootstrap import LEVEL
from pipeline.reporting.compare import Headline, headline, pareto_front
from pipeline.reporting.effects import CRF, Effect, crf_changes
from pipeline.reporting.groups import Difference, Study, miou_in
from pipeline.reporting.load import MODES, Variant
from pipeline.reporting.words import (
    NBSP,
    listing,
    number,
    plus_minus,
    signed,
    signed_span,
    span,
)

#: Parts of a sentence: (text, whether it is stressed).
Sentence = list[tuple[str, bool]]
#: More names than this are counted, not listed.
MOST_NAMES = 8


def answer(study: Study, effects: Sequence[Effect]) -> list[Sentence]:
    """The best setting, what a change bought, the costs that pay off, the CRF, how far to trust."""
    found = headline(study)
    if found is None:
        return [[("No variant has been evaluated yet.", False)]]
    sentences = [
        _best(study, found),
        _highest(found),
        _largest(effects),
        _front(study),
        _crf(study, found),
        _trust(study),
    ]
    return [sentence for sentence in sentences if sentence]


def _best(study: Study, found: Headline) -> Sentence:
    evaluation = found.best.evaluation
    spread = found.best.spread(miou_in("single"))
    parts: Sentence = [
        (found.best.name, True),
        (" has the highest mIoU" if found.next else " was evaluated alone: its mIoU", False),
        (f" on the {evaluation.split} split of {evaluation.dataset}", False),
        (f" ({number(evaluation.images, 0)} images): " if found.next else " is ", False),
        (f"{plus_minus(found.best.miou, spread)}{NBSP}%", True),
        (" at a single scale without CRF", False),
    ]
    if spread is not None:
        parts += [(f", the mean of {len(found.best.runs)} seeds", False)]
    if found.next is None or found.lead is None:
        interval = found.best.interval()
        within = f" ({span(interval)} with {LEVEL:.0f}{NBSP}% confidence)" if interval else ""
        return [*parts, (f"{within}.", False)]
    if found.lead.points == 0:
        parts += [(", level with ", False), (found.next.name, True)]
    else:
        parts += [(f", {number(found.lead.points)} points above ", False), (found.next.name, True)]
        parts += _certainty(found.lead)
    costs = _costs(found)
    return [*parts, (f", at {listing(costs)}." if costs else ".", False)]


def _certainty(lead: Difference) -> Sentence:
    """Where the lead lies, and whether other images or other seeds might turn it."""
    known = []
    if lead.interval is not None:
        known.append(f"{LEVEL:.0f}{NBSP}% confidence: {signed_span(lead.interval)}")
    if lead.spread is not None:
        known.append(f"spread over seeds: {number(lead.spread)}")
    within = f" ({'; '.join(known)})" if known else ""
    if not lead.doubts:
        return [(within, False)]
    return [(", a difference ", False), (listing(lead.doubts), True), (within, False)]


def _costs(found: Headline) -> list[str]:
    if found.next is None:
        return []
    mine, other = found.best.cost, found.next.cost
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
    return costs


def _highest(found: Headline) -> Sentence:
    group, mode = found.highest
    if mode == "single":
        return []
    return [
        ("The highest figure of all modes is ", False),
        (f"{number(group.mean(miou_in(mode)))}{NBSP}%", True),
        (", by ", False),
        (group.name, True),
        (f" with {MODES[mode]}.", False),
    ]


def _largest(effects: Sequence[Effect]) -> Sentence:
    """The change that counts most; the others stand in the table below the answer."""
    single = [effect for effect in effects if effect.setting != CRF]
    if len(single) < 2:
        return []
    most = max(single, key=lambda effect: abs(effect.miou.points))
    if number(abs(most.miou.points)) == number(0):
        return []
    pairs = len(most.changes)
    over = f" on average over {pairs} pairs" if pairs > 1 else ""
    cost = f" for {number(most.gmacs)} times the GMACs" if most.gmacs is not None else ""
    besides = f", with other changes besides ({'; '.join(most.besides)})" if most.besides else ""
    doubts = f", which is {listing(most.miou.doubts)}" if most.miou.doubts else ""
    return [
        ("Of single changes ", False),
        (f"{most.setting} {most.said}", True),
        (" counts most: ", False),
        (f"{signed(most.miou.points)} points", True),
        (f"{over}{cost}{besides}{doubts}.", False),
    ]


def _front(study: Study) -> Sentence:
    """Who is worth its GMACs; said only where somebody is not."""
    compared = study.compared
    costs = [group.cost for group in compared]
    if len(compared) < 3 or len({cost.size for cost in costs}) > 1:
        return []
    points = [(cost.gmacs, g.miou) for cost, g in zip(costs, compared, strict=True) if cost.gmacs]
    front = pareto_front(points)
    if len(points) < len(compared) or len(front) == len(compared):
        return []
    names = [compared[index].name for index in front]
    beaten = [group.name for group in compared if group.name not in names]
    others = listing(beaten) if len(beaten) <= MOST_NAMES else f"the other {len(beaten)}"
    return [
        ("By GMACs ", False),
        (listing(names), True),
        (" are the Pareto front" if len(names) > 1 else " is the Pareto front by itself", False),
        (f"; for {others} there is a variant that costs no more and scores higher.", False),
    ]


def _crf(study: Study, found: Headline) -> Sentence:
    if found.crf_gains is None:
        return []
    least, most = (signed(gain) for gain in found.crf_gains)
    gains = most if least == most else f"{least} to {most}"
    changes = crf_changes(study)
    names = [change.before.name for change in changes if change.miou.doubts]
    doubt = ""
    if len(names) == len(study.compared):
        doubt = ", which may be chance: it is " + _shared_doubt([c.miou for c in changes])
    elif names:
        said = listing(names) if len(names) <= MOST_NAMES else f"{len(names)} of them"
        doubt = f"; for {said} that may be chance"
    return [(f"The CRF changes mIoU by {gains} points{doubt}.", False)]


def _shared_doubt(differences: Sequence[Difference]) -> str:
    return listing(list(dict.fromkeys(text for one in differences for text in one.doubts)))


def _trust(study: Study) -> Sentence:
    """How large a difference must be to mean something; one seed cannot say."""
    if study.spread is not None:
        counts = sorted({len(group.runs) for group in study.repeated})
        number_of = listing([str(count) for count in counts])
        some = "" if len(study.repeated) == len(study.compared) else "repeated "
        return [
            ("Trainings that differ in nothing but the seed spread by ", False),
            (f"±{number(study.spread)} points", True),
            (
                f" (standard deviation, pooled over {len(study.repeated)} {some}settings of "
                f"{number_of} seeds): a difference smaller than its spread is said to be so.",
                False,
            ),
        ]
    if len(study.compared) < 2:
        return []
    seeds = sorted({seed for group in study.compared for seed in group.seeds})
    said = f" (seed {seeds[0]})" if len(seeds) == 1 else ""
    return [
        (
            f"Each variant was trained once{said}, so the differences have no spread over "
            "trainings: a small one may be chance.",
            False,
        )
    ]


def remarks(study: Study, data: Prepared | None) -> list[str]:
    """What keeps the variants from being compared on equal terms, a line each."""
    lines = []
    missing = [variant for variant in study.variants if variant.evaluation is None]
    if missing:
        lines.append(f"Without figures: {_missing(missing)}. Run dvc repro to complete them.")
    for variant in study.elsewhere:
        if evaluation := variant.evaluation:
            lines.append(
                f"{variant.name} was evaluated on {number(evaluation.images, 0)} images of the "
                f"{evaluation.split} split of {evaluation.dataset}: other images or other "
                "classes, so it is not compared."
            )
    digests = {digest for v in study.variants if (digest := v.run.get("data_digest"))}
    if len(digests) > 1:
        lines.append("The variants were not all trained on the same state of the data.")
    elif data and digests and data.digest not in digests:
        lines.append("The prepared data has changed since the variants were trained.")
    costs = [group.cost for group in study.compared]
    if len({cost.size for cost in costs}) > 1:
        lines.append("Costs were stated at different sizes, so they are not set in ratio.")
    elif len({cost.device for cost in costs}) > 1:
        lines.append("Times were taken on different devices, so they are not set in ratio.")
    return lines


def _missing(variants: Sequence[Variant]) -> str:
    if len(variants) > MOST_NAMES:
        return f"{len(variants)} variants, which the table names"
    return listing([f"{variant.name} ({variant.state})" for variant in variants])
