"""The report's files: one self-contained page, the same in Markdown, figures, curves.csv."""

import csv
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from pipeline.datasets.prepared import Prepared
from pipeline.files import whole_folder
from pipeline.reporting import answer, heat, made, plots, tables
from pipeline.reporting.compare import headline
from pipeline.reporting.effects import effects
from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import Variant, load_data, load_variants
from pipeline.reporting.papers import comparisons
from pipeline.reporting.strips import Strip, data_uri, sheet, strips
from pipeline.reporting.variants import measures_table, variants_note, variants_table
from pipeline.reporting.words import Markdown, markdown

#: With more classes than this a table of the confusions is no longer read; the page has a picture.
CONFUSIONS_AS_TABLE = 32
#: Pictures of a search of the CRF's settings on the page; the figures of all stand in its table.
MOST_SURFACES = 4


def write_report(
    variants: list[str], runs: Path, out: Path, prepared: Path, commit: str | None = None
) -> Path:
    """Write index.html, report.md, curves.csv and figures/ into `out`, whole or not at all.

    Args:
        variants: names, in the order in which they are shown.
        runs: folder whose <variant>/ is a run's folder; what is missing there is shown as not run.
        out: folder to make or replace.
        prepared: folder whose <data set>/ is the training-ready set; without it there are no
            pictures.
        commit: of the code, if known.

    Returns:
        The page.

    Raises:
        UserError: no variant is named, or a file cannot be understood.
    """
    study = study_of(load_variants(variants, runs))
    name = _data_name(study)
    content = _content(study, load_data(name, prepared) if name else None, commit)
    with whole_folder(out) as folder:
        drawn = _figures(study, content, folder / "figures")
        (folder / "index.html").write_text(_html(study, content, drawn), encoding="utf-8")
        (folder / "report.md").write_text(_markdown(content, drawn), encoding="utf-8")
        (folder / "curves.csv").write_text(curves(study.variants), encoding="utf-8")
    return out / "index.html"


def curves(variants: Sequence[Variant]) -> str:
    """Every validation of every variant as CSV, for DVC's plots."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["iteration", "val_miou", "train_loss", "variant"])
    for variant in variants:
        for row in variant.history:
            writer.writerow([row.iteration, row.val_miou, row.train_loss, variant.name])
    return buffer.getvalue()


def git_commit(project: Path) -> str | None:
    """The short commit of the project, "-dirty" with changes; None outside a repository."""
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def _data_name(study: Study) -> str | None:
    """The data set of the compared variants, else of the first that has a configuration."""
    if study.compared:
        return study.compared[0].evaluation.dataset
    return next((v.config.dataset for v in study.variants if v.config), None)


def _content(study: Study, data: Prepared | None, commit: str | None) -> dict[str, Any]:
    """What both templates print."""
    found = headline(study)
    best = found.best if found else None
    evaluation, bought, pictures = best and best.evaluation, effects(study), strips(study, data)
    palette = dict(zip(evaluation.classes, evaluation.palette, strict=True)) if evaluation else {}
    seen = sorted({number for strip in pictures.strips for number in strip.shows})
    return {
        "title": f"DeepLab variants on {_data_name(study) or 'no data yet'}",
        "answer": answer.answer(study, bought),
        "remarks": answer.remarks(study, data),
        "bought": bought,
        "effects": tables.effects_table(bought),
        "changes": tables.changes_table(bought),
        "seeds": [f"{g.name}: {', '.join(v.name for v in g.variants)}" for g in study.repeated],
        "variants": variants_table(study),
        "measures": measures_table(study),
        "variants_note": variants_note(study),
        "papers": comparisons(study.variants),
        "classes": tables.classes_table(study),
        "gains": tables.gains_table(study),
        "narrow": tables.narrow_band(best) if best else None,
        "searches": tables.searches_table(study.variants),
        "surfaces": _surfaces(study),
        "confusion": tables.confusion_table(best) if best else tables.Table([]),
        "confusions_said": tables.confusions_said(best) if best else [],
        "best": best.name if best else None,
        "evaluation": evaluation,
        "palette": palette,
        "pictures": pictures,
        "seen": {evaluation.classes[n]: evaluation.palette[n] for n in seen} if evaluation else {},
        "runs": made.runs_table(study.variants),
        "settings": made.settings_table(study.variants),
        "commands": made.commands(study.variants, best.first.name if best else None, commit),
        "data": data,
        "commit": commit,
    }


def _surfaces(study: Study) -> dict[str, bytes]:
    """Variant -> the picture of its search of the CRF's settings, a PNG."""
    found = {v.name: v.search.surface for v in study.variants if v.search and v.search.surface}
    return {name: path.read_bytes() for name, path in list(found.items())[:MOST_SURFACES]}


def _figures(study: Study, content: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Draw what there is to draw; name -> file, for the Markdown."""
    folder.mkdir()
    found = headline(study)
    figures: dict[str, Figure | None] = {
        "effects.png": plots.effects_plot(content["bought"]),
        "cost.png": plots.cost_plot(study, ("gmacs", "ms_per_image")),
        "curves.png": plots.curves_plot(study, ("val_miou", "train_loss")),
        "class_iou.png": heat.class_plot(study),
        "borders.png": plots.borders_plot(study, ("miou", "gain")),
        "confusion.png": heat.confusion_plot(found.best.confusion(), found.best.evaluation.classes)
        if found
        else None,
    }
    drawn = {}
    for name, figure in figures.items():
        if figure is not None:
            plots.save(figure, folder / name)
            drawn[name] = folder / name
    drawn_strips: list[Strip] = content["pictures"].strips
    for index, strip in enumerate(drawn_strips, start=1):
        drawn[f"picture_{index}.jpg"] = folder / f"picture_{index}.jpg"
        sheet(strip).save(drawn[f"picture_{index}.jpg"], quality=88)
    for index, surface in enumerate(content["surfaces"].values(), start=1):
        drawn[f"search_{index}.png"] = folder / f"search_{index}.png"
        drawn[f"search_{index}.png"].write_bytes(surface)
    return drawn


def _html(study: Study, content: dict[str, Any], drawn: dict[str, Path]) -> str:
    panels = {
        "effects": plots.effects_plot(content["bought"]),
        "gmacs": plots.cost_plot(study, ("gmacs",)),
        "ms_per_image": plots.cost_plot(study, ("ms_per_image",)),
        "val_miou": plots.curves_plot(study, ("val_miou",)),
        "train_loss": plots.curves_plot(study, ("train_loss",)),
        "borders": plots.borders_plot(study, ("miou",)),
        "borders_gain": plots.borders_plot(study, ("gain",)),
    }
    # Matplotlib escapes the texts inside; the rest of the SVG is its own.
    drawings = {
        name: Markup(plots.svg(figure, name))
        for name, figure in panels.items()
        if figure is not None
    }
    confusion = None
    if len(content["confusion"].rows) > CONFUSIONS_AS_TABLE:
        confusion = data_uri(drawn["confusion.png"].read_bytes(), "image/png")
    environment = Environment(
        loader=PackageLoader("pipeline.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "breakable": _breakable}
    template = environment.get_template("report.html.j2")
    return template.render(content, drawings=drawings, confusion_picture=confusion)


def _breakable(name: str) -> Markup:
    """A long name that may go on in the next line after an underscore."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _markdown(content: dict[str, Any], drawn: dict[str, Path]) -> str:
    environment = Environment(
        loader=PackageLoader("pipeline.reporting"),
        # Every printed value is literal text unless it says that it is Markdown.
        finalize=markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["raw"] = Markdown
    template = environment.get_template("report.md.j2")
    return template.render(content, drawn=set(drawn))
