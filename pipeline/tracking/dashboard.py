"""MLflow's comparison of the variants, ready when the experiment is opened.

MLflow's page of runs keeps a view under a name as a tag of the experiment: the columns, charts and
groups that somebody chose there by hand and saved. Here the tags are written with the experiment,
so that nobody has to. The form is the page's own and is published nowhere: it was read from MLflow
3.17 and is checked in a browser by the tests. Another MLflow that does not know it shows its plain
page.
"""

import base64
import hashlib
import json
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.tracking.naming import AXES, GROUP

if TYPE_CHECKING:
    from mlflow import MlflowClient

State = dict[str, Any]

DESCRIPTION = """\
One row a variant of one data set. The menu **Views** holds the comparison, ready.

- *Variants*: every run
- *Means over seeds*: runs that differ in nothing but the seed are taken together
- *Charts alone*: for a narrow window

All figures of accuracy are percent, of the split that the tag `evaluate.split` names:

- `test/miou`: mean intersection over union, single scale; `_ms_flip`: several scales and the
  mirrored image averaged; `_crf`: after the fully connected CRF
- `test/iou/<class>`: of one class
- `crf/gain`: `test/miou_crf` minus `test/miou`, in points
- `cost/gmacs`: billions of multiply-adds an image; `cost/params_m`: millions of parameters
"""

#: The views' names for themselves, in links, and what MLflow's menu `Views` calls them.
EVERY_RUN, OVER_SEEDS, NARROW = "variants", "seeds", "narrow"
TITLES = {
    EVERY_RUN: "Variants",
    OVER_SEEDS: "Means over seeds",
    NARROW: "Charts alone",
}

#: The tag that says which form of the views was written: what users change stays theirs.
WRITTEN = "dashboard"
#: MLflow reads a view from these tags.
VIEW = "mlflow.sharedViewState."
#: The page of trainings, and not the one of language models' traces.
KIND = ("mlflow.experimentKind", "custom_model_development")
#: What MLflow shows of the experiment beside its name.
NOTE = ("mlflow.note.content", DESCRIPTION)

SCORE, CRF, FUSED, GAIN = "test/miou", "test/miou_crf", "test/miou_ms_flip", "crf/gain"
GMACS, PARAMS, MILLISECONDS = "cost/gmacs", "cost/params_m", "cost/ms_per_image"
COLUMNS = (SCORE, CRF, FUSED, GAIN, GMACS, PARAMS, MILLISECONDS)


@dataclass(frozen=True)
class Section:
    """A part of the page that can be folded.

    Args:
        name: its heading. MLflow puts the metrics that no chart here shows under a heading of
            their own, by the part of their names before the last `/`: `test/iou` for the classes.
        charts: in their order; MLflow calls each by its metrics.
        is_open: whether it is unfolded at first.
        columns: charts beside one another, in a wide window.
        height: of a chart, in pixels.
    """

    name: str
    charts: tuple[State, ...] = ()
    is_open: bool = False
    columns: int = 3
    height: int = 300


def bars(metric: str) -> State:
    """One bar a run or group."""
    return {"type": "BAR", "metricKey": metric}


def curves(metric: str) -> State:
    """One curve a run or group, over the iterations."""
    axes = {"scaleType": "linear", "xAxisKey": "step", "xAxisScaleType": "linear"}
    return {"type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], **axes}


def scatter(x: str, y: str) -> State:
    """One point a run or group."""
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return {"type": "SCATTER", **axes}


def parallel(params: Iterable[str], metrics: Iterable[str]) -> State:
    """One line a run or group, through its settings to its figures."""
    chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics)}
    return {"type": "PARALLEL", "showAllRuns": True, **chosen}


def sections(grouped: bool) -> tuple[Section, ...]:
    """The page's parts, the answer first.

    Args:
        grouped: over seeds. MLflow averages a group's numbers and drops its words: there the
            backbone and the ASPP are no axes.
    """
    flow = parallel(["model.output_stride"] if grouped else AXES, [GMACS, SCORE])
    answer = (bars(SCORE), scatter(GMACS, SCORE), bars(GAIN), scatter(MILLISECONDS, SCORE))
    modes = (bars(CRF), bars(FUSED), scatter(PARAMS, SCORE))
    learning = (curves("val/miou"), curves("train/loss"))
    return (
        Section("Which variant wins, and at what cost", answer, is_open=True, columns=2),
        Section("From settings to mIoU", (flow,), is_open=True, columns=1, height=360),
        Section("test/iou", is_open=True),
        Section("Learning", learning, is_open=True, columns=2),
        Section("Other modes and costs", modes, is_open=True),
        *(Section(name) for name in ("test", "val", "train", "cost", "crf", "crf_search")),
        # MLflow's own, which it expects at the end.
        Section("Model metrics"),
        Section("System metrics"),
    )


def view(name: str) -> State:
    """What the page of runs shows: columns, order, groups, charts.

    Args:
        name: of TITLES.
    """
    grouped = name == OVER_SEEDS
    widths = {f"params.`{name}`": 140 for name in AXES}
    widths |= {f"metrics.`{name}`": 110 for name in COLUMNS}
    parts = sections(grouped)
    charts = [
        {"uuid": f"chart-{place}-{number}", "metricSectionId": f"part-{place}", **chart}
        for place, part in enumerate(parts)
        for number, chart in enumerate(part.charts)
    ]
    return {
        "selectedColumns": list(widths),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "orderByKey": f"metrics.`{SCORE}`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        # The list of runs takes half of a narrow window.
        "runListHidden": name == NARROW,
        "groupBy": _groups() if grouped else None,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        # The order of the parts is ours: MLflow would sort them by name.
        "isAccordionReordered": True,
        "compareRunCharts": [
            {"deleted": False, "isGenerated": False, "runsCountToCompare": 100, **chart}
            for chart in charts
        ],
        "compareRunSections": [_section(place, part) for place, part in enumerate(parts)],
    }


def _groups() -> State:
    keys = [{"mode": "tag", "groupByData": GROUP}]
    return {"aggregateFunction": "average", "groupByKeys": keys}


def _section(place: int, part: Section) -> State:
    return {
        "uuid": f"part-{place}",
        "name": part.name,
        "display": part.is_open,
        "isReordered": False,
        "columns": part.columns,
        "cardHeight": part.height,
    }


def views() -> dict[str, str]:
    """The views as MLflow's page packs them, by their names for themselves."""
    return {name: _packed(view(name)) for name in TITLES}


def _packed(state: State) -> str:
    packed = zlib.compress(json.dumps(state).encode(), level=9)
    return f"deflate;{base64.b64encode(packed).decode()}"


def write_views(client: "MlflowClient", experiment: str) -> None:
    """Write the views onto an experiment, unless it has them.

    What a user saved over them stays until the views' own form changes.

    Args:
        client: of the store.
        experiment: its number.
    """
    made = views()
    form = hashlib.sha256(json.dumps([made, TITLES]).encode()).hexdigest()[:12]
    there = client.get_experiment(experiment).tags
    if there.get(WRITTEN) == form:
        return
    now = int(time.time() * 1000)
    for name, state in made.items():
        named = {"name": TITLES[name], "createdAt": now, "updatedAt": now, "state": state}
        client.set_experiment_tag(experiment, f"{VIEW}{name}", json.dumps(named))
    for key, value in (KIND, NOTE):
        if key not in there:
            client.set_experiment_tag(experiment, key, value)
    client.set_experiment_tag(experiment, WRITTEN, form)


def link(server: str, experiment: str, name: str = EVERY_RUN) -> str:
    """Where a view opens.

    Args:
        server: http://host:port of MLflow's pages.
        experiment: its number.
        name: the view's.
    """
    where = f"{server.rstrip('/')}/#/experiments/{experiment}/runs"
    asked = f"viewStateShareKey={name}&compareRunsMode=CHART&workflowType=machine_learning"
    return f"{where}?{asked}"
