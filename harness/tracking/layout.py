"""The arrangement of MLflow's charts when a study is opened: sections of charts, grouped by arm, averaged over seeds.

It is stored as the MLflow UI itself stores a shared view, which is an experiment tag of JSON. That is no documented API, so a
browser test guards it; a version of the UI that does not understand it shows its own default charts.
"""

import json
from collections.abc import Sequence
from typing import Any

from harness.scores import COST, DIAGNOSTICS, ELBO_CURVES, KL_CURVES, NATIVE, TRUST, Score, Scores, compared, in_groups

VIEW_KEY = "default"
SUPERSEDED, NOT_SUPERSEDED = "superseded", "no"  # the tag of a trial's run that says whether the present plan has its trial
SUPERSEDED_BY = "superseded.by"  # the tag of a parent run that says for which plan those tags were set


def sections(scores: Scores) -> dict[str, list[Score]]:
    """Return the scores that are charted, by the title of their section."""
    arms = [score for score in in_groups(scores, *compared(scores)) if score.better]
    arms.sort(key=lambda score: score.compute is None)  # a study's own come first
    return {
        "Scores that compare arms": arms,
        KL_CURVES: in_groups(scores, KL_CURVES),
        ELBO_CURVES: in_groups(scores, ELBO_CURVES, NATIVE),
        DIAGNOSTICS: in_groups(scores, TRUST, DIAGNOSTICS),
        COST: in_groups(scores, COST),
    }


def _chart(section: int, score: Score, number: int) -> dict[str, Any]:
    """Return a chart of a score in a section: a line over epochs for a score of every epoch, else a bar per arm."""
    metric = score.key
    chart: dict[str, Any] = {
        "uuid": f"chart-{number}",
        "runsCountToCompare": 60,
        "metricSectionId": f"section-{section}",
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
    }
    if not score.curve:
        return chart | {"type": "BAR", "displayName": metric}
    return chart | {
        "type": "LINE",
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "useGlobalLineSmoothing": True,
        "useGlobalXaxisKey": True,
        "range": {},
        "displayPoints": None,
    }


def _section(number: int, title: str) -> dict[str, Any]:
    """Return a section of charts."""
    return {
        "uuid": f"section-{number}",
        "name": title,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def shared_view(scores: Scores, varied: Sequence[str]) -> str:
    """Return the arrangement as the JSON text that MLflow's UI reads.

    Args:
        scores: the rows of the study's scores.
        varied: the fields that differ between its trials, as their parameters are named: columns beside arm and seed.
    """
    charted = sections(scores)
    columns = [score for score in scores.values() if score.headline and score in in_groups(scores, *compared(scores), COST)]
    return json.dumps(
        {
            "searchFilter": f"tags.`kind` = 'trial' and tags.`{SUPERSEDED}` = '{NOT_SUPERSEDED}'",
            "orderByKey": "attributes.start_time",
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
            "runsPinned": [],
            "runsHidden": [],
            "runsVisibilityMap": {},
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": [
                _chart(i, score, n)
                for n, (i, score) in enumerate((i, score) for i, charts in enumerate(charted.values()) for score in charts)
            ],
            "compareRunSections": [_section(i, title) for i, title in enumerate(charted)],
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": True,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]},
            "groupsExpanded": {},
            "autoRefreshEnabled": False,
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }
    )
