"""The arrangements of MLflow's charts when a study is opened: every seed as a dot and a line, or each arm as the mean of its seeds.

They are stored as the MLflow UI itself stores a shared view, which is an experiment tag of JSON. That is no documented API, so a
browser test guards it; a version of the UI that does not understand it shows its own default charts. A chart of means cannot show
images nor the spread of a last value, and one of single runs cannot show means: hence two views.
"""

import json
from collections.abc import Sequence
from typing import Any

from harness.figures.schedule import KEYS as PICTURES
from harness.scores import (
    COST,
    DIAGNOSTICS,
    ELBO_CURVES,
    KL_CURVES,
    NATIVE,
    TRUST,
    Score,
    Scores,
    compared,
    in_groups,
)

VIEW_KEY, MEANS_KEY = "default", "means"  # of every seed, and of the arms' means
SUPERSEDED, NOT_SUPERSEDED = "superseded", "no"  # the tag of a trial's run that says whether the present plan has its trial
SUPERSEDED_BY = "superseded.by"  # the tag of a parent run that says for which plan those tags were set
COMPARING, TRAINING = "Scores that compare arms", "Images over training"
MOST = 60  # runs in a chart
COLUMNS, HEIGHT, TALL = 2, 360, 480  # charts side by side, and the pixels of a chart and of one of images
CLOSED = (NATIVE, DIAGNOSTICS)  # sections that are closed when the page opens: each scale for itself, and what may be wrong


def sections(scores: Scores) -> dict[str, list[Score]]:
    """Return the scores that are charted, by the title of their section."""
    arms = [score for score in in_groups(scores, *compared(scores)) if score.better]
    arms.sort(key=lambda score: score.compute is None)  # a study's own come first
    return {
        COMPARING: arms,
        KL_CURVES: in_groups(scores, KL_CURVES),
        ELBO_CURVES: in_groups(scores, ELBO_CURVES),
        COST: in_groups(scores, COST),
        NATIVE: in_groups(scores, NATIVE),
        DIAGNOSTICS: in_groups(scores, TRUST, DIAGNOSTICS),
    }


def _chart(section: int, number: int, kind: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return a chart in a section, of a kind that MLflow knows, with its settings."""
    return {
        "uuid": f"chart-{number}",
        "type": kind,
        "runsCountToCompare": MOST,
        "metricSectionId": f"section-{section}",
        "deleted": False,
        "isGenerated": False,
        "displayName": name,
        **settings,
    }


def _score_chart(section: int, number: int, score: Score, *, means: bool) -> dict[str, Any]:
    """Return a chart of a score: a line over epochs for a score of every epoch, else a bar of each arm's mean or a dot per seed."""
    metric = score.key
    if score.curve:
        return _chart(
            section,
            number,
            "LINE",
            metric,
            metricKey=metric,
            selectedMetricKeys=[metric],
            lineSmoothness=0,
            scaleType="linear",
            xAxisKey="step",
            xAxisScaleType="linear",
            selectedXAxisMetricKey="",
            useGlobalLineSmoothing=True,
            useGlobalXaxisKey=True,
            range={},
            displayPoints=None,
        )
    if means:
        return _chart(section, number, "BAR", metric, metricKey=metric)
    axes = {"xaxis": {"key": "arm", "type": "PARAM"}, "yaxis": {"key": metric, "type": "METRIC"}}
    return _chart(section, number, "SCATTER", metric, metricKey=metric, **axes)


def _pictures(section: int, number: int, epochs: int) -> list[dict[str, Any]]:
    """Return the charts of the pictures of training, the first from this number on, with their sliders on the last epoch."""
    return [
        _chart(section, number + i, "IMAGE", key, imageKeys=[key], step=epochs, showRunParams=False)
        for i, key in enumerate(PICTURES)
    ]


def _section(number: int, title: str, *, open_: bool = True, columns: int = COLUMNS, height: int = HEIGHT) -> dict[str, Any]:
    """Return a section of charts of a height in pixels, with so many beside each other."""
    return {
        "uuid": f"section-{number}",
        "name": title,
        "display": open_,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }


def views(scores: Scores, varied: Sequence[str], epochs: int, parent: str) -> dict[str, str]:
    """Return the arrangements as the JSON texts that MLflow's UI reads, by the key of the view.

    Args:
        scores: the rows of the study's scores.
        varied: the fields that differ between its trials, as their parameters are named: columns beside arm and seed.
        epochs: of its trials, of which the last has pictures.
        parent: the id of the study's own run, which stays on top of the table.
    """
    return {key: _view(scores, varied, epochs, parent, means=key == MEANS_KEY) for key in (VIEW_KEY, MEANS_KEY)}


def _view(scores: Scores, varied: Sequence[str], epochs: int, parent: str, *, means: bool) -> str:
    """Return one of the arrangements."""
    charts: list[dict[str, Any]] = []
    titles: list[dict[str, Any]] = []
    found = sections(scores)
    # Bars show no spread, so that the curves, which have a band from the lowest seed to the highest, come before them.
    order = [KL_CURVES, ELBO_CURVES, *(t for t in found if t not in (KL_CURVES, ELBO_CURVES))] if means else list(found)
    for title in order:
        charted = found[title]
        charts += [_score_chart(len(titles), len(charts) + i, score, means=means) for i, score in enumerate(charted)]
        titles.append(_section(len(titles), title, open_=title not in CLOSED))
        if title == ELBO_CURVES and not means:
            charts += _pictures(len(titles), len(charts), epochs)
            titles.append(_section(len(titles), TRAINING, columns=1, height=TALL))
    families = [key.removesuffix("/") for key in scores if key.endswith("/")]  # MLflow adds their charts to these
    titles += [_section(len(titles) + i, family, open_=False) for i, family in enumerate(families)]
    charted_keys = {chart.get("metricKey") for chart in charts}
    left_out = [key for key in scores if not key.endswith("/") and key not in charted_keys]  # and of any score without a chart
    charts += [{"uuid": f"none-{i}", "type": "BAR", "metricKey": key, "deleted": True} for i, key in enumerate(left_out)]
    columns = [score for score in in_groups(scores, *compared(scores)) if score.headline and score.better]
    by_arm = {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]}
    return json.dumps(
        {
            "searchFilter": f"tags.`kind` = 'trial' and tags.`{SUPERSEDED}` = '{NOT_SUPERSEDED}'",
            "orderByKey": "params.`arm`",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [
                *(f"params.`{name}`" for name in ("arm", "seed", *varied)),
                *(f"metrics.`{score.key}`" for score in columns),
            ],
            "columnOrder": [],
            "columnWidths": {},
            "runsExpanded": {},
            "runsPinned": [parent],
            "runsHidden": [],
            "runsVisibilityMap": {parent: False},
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": charts,
            "compareRunSections": titles,
            "viewMaximized": False,
            "runListHidden": True,  # it takes a third of 1,000 pixels, and charts name runs
            "isAccordionReordered": True,
            "useGroupedValuesInCharts": means,
            "hideEmptyCharts": True,
            "groupBy": by_arm if means else None,
            "groupsExpanded": {},
            "autoRefreshEnabled": False,
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }
    )
