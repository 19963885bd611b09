"""The report's files: one self-contained page, the same in Markdown, figures, curves.csv."""

import csv
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline.files import whole_folder
from pipeline.reporting import answer, heat, plots, tables
from pipeline.reporting.compare import comparable, evaluation_of, headline, single_changes
from pipeline.reporting.load import DataSet, Variant, load_data_set, load_variants
from pipeline.reporting.papers import comparisons
from pipeline.reporting.strips import Strip, data_uri, strips
from pipeline.reporting.variants import measures_table, variants_note, variants_table
from pipeline.reporting.words import Markdown, markdown

#: With more classes than this a table of the confusions is no longer read; the page has a picture.
CONFUSIONS_AS_TABLE = 32


def write_report(
    variants: list[str], runs: Path, out: Path, prepared: Path, commit: str | None = None
) -> Path:
    """Write index.html, report.md, curves.csv and figures/ into `out`, whole or not at all.

    Args:
        variants: names, in the order in which they are shown.
        runs: folder whose <variant>/ is a run's folder; what is missing there is shown as not run.
        out: folder to make or replace.
        prepared: folder whose <data set>/dataset.json describes the data.
        commit: of the code, if known.

    Returns:
        The page.

    Raises:
        UserError: no variant is named, or a file cannot be understood.
    """
    found = load_variants(variants, runs)
    name = _data_name(found)
    content = _content(found, load_data_set(name, prepared) if name else None, commit)
    with whole_folder(out) as folder:
        drawn = _figures(found, folder / "figures", content["strips"])
        (folder / "index.html").write_text(_html(content, found, drawn), encoding="utf-8")
        (folder / "report.md").write_text(_markdown(content, drawn), encoding="utf-8")
        (folder / "curves.csv").write_text(curves(found), encoding="utf-8")
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


def _data_name(variants: Sequence[Variant]) -> str | None:
    """The data set of the compared variants, else of the first that has a configuration."""
    compared = comparable(variants)
    if compared:
        return evaluation_of(compared[0]).dataset
    return next((v.config.dataset for v in variants if v.config), None)


def _content(
    variants: Sequence[Variant], data: DataSet | None, commit: str | None
) -> dict[str, Any]:
    """What both templates print."""
    found = headline(variants)
    best = found.evaluation if found else None
    return {
        "title": f"DeepLab variants on {_data_name(variants) or 'no data yet'}",
        "answer": answer.answer(variants),
        "remarks": answer.remarks(variants, data),
        "variants": variants_table(variants),
        "measures": measures_table(variants),
        "variants_note": variants_note(variants),
        "papers": comparisons(variants),
        "changes": tables.changes_table(single_changes(variants)),
        "classes": tables.classes_table(variants),
        "confusion": tables.confusion_table(best) if best else tables.Table([]),
        "confusions_said": tables.confusions_said(best) if best else [],
        "best": found.best.name if found else None,
        "evaluation": best,
        "palette": dict(zip(best.classes, best.palette, strict=False)) if best else {},
        "strips": strips(variants),
        "runs": tables.runs_table(variants),
        "settings": tables.settings_table(variants),
        "data": data,
        "commit": commit,
    }


def _figures(
    variants: Sequence[Variant], folder: Path, pictures: Sequence[Strip]
) -> dict[str, Path]:
    """Draw what there is to draw; name -> file, for the Markdown."""
    folder.mkdir()
    found = headline(variants)
    figures: dict[str, Figure | None] = {
        "cost.png": plots.cost_plot(variants, ("gmacs", "ms_per_image")),
        "curves.png": plots.curves_plot(variants, ("val_miou", "train_loss")),
        "class_iou.png": heat.class_plot(variants),
        "borders.png": plots.borders_plot(variants, ("miou", "gain")),
        "confusion.png": heat.confusion_plot(found.evaluation.confusion(), found.evaluation.classes)
        if found
        else None,
    }
    for index, strip in enumerate(pictures, start=1):
        figures[f"picture_{index}.jpg"] = plots.strip_plot(strip.rows())
    drawn = {}
    for name, figure in figures.items():
        if figure is not None:
            plots.save(figure, folder / name)
            drawn[name] = folder / name
    return drawn


def _html(content: dict[str, Any], variants: Sequence[Variant], drawn: dict[str, Path]) -> str:
    panels = {
        "gmacs": plots.cost_plot(variants, ("gmacs",)),
        "ms_per_image": plots.cost_plot(variants, ("ms_per_image",)),
        "val_miou": plots.curves_plot(variants, ("val_miou",)),
        "train_loss": plots.curves_plot(variants, ("train_loss",)),
        "borders": plots.borders_plot(variants, ("miou",)),
        "borders_gain": plots.borders_plot(variants, ("gain",)),
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
    environment.filters["data_uri"] = data_uri
    template = environment.get_template("report.html.j2")
    return template.render(content, drawings=drawings, confusion_picture=confusion)


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
