"""The arrangement of MLflow's charts when a study is opened: sections of charts, grouped by arm, averaged over seeds.

It is stored as the MLflow UI itself stores a shared view, which is an experiment tag of JSON. That is no documented API, so a
browser test guards it; a version of the UI that does not understand it shows its own default charts.
"""

import json
from typing import Any

VIEW_KEY = "default"
SECTIONS = {
    "Scores that compare arms (test set)": [
        "test/common_bits",
        "test/squared_error",
        "test/frechet",
        "test/knn15_accuracy",
    ],
    "KL (nats per image)": ["kl/validation", "kl/train"],
    "ELBO, each arm on its own scale": [
        "elbo/validation",
        "recon/validation",
        "elbo/train",
        "recon/train",
    ],
    "Diagnostics": [
        "validation/dead_units",
        "diagnostics/effective_beta",
        "diagnostics/late_gain",
        "test/inference_gap",
    ],
    "Cost": ["perf/step_ms_p50", "perf/images_per_s", "perf/train_s"],
}


def _chart(section: int, metric: str, number: int) -> dict[str, Any]:
    """Return a chart of a metric in a section: a line over epochs for a score of every epoch, else a bar per arm."""
    chart: dict[str, Any] = {
        "uuid": f"chart-{number}",
        "runsCountToCompare": 60,
        "metricSectionId": f"section-{section}",
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
    }
    curve = metric.endswith(("/train", "/validation"))
    if not curve:
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


def shared_view() -> str:
    """Return the arrangement as the JSON text that MLflow's UI reads."""
    metrics = [(i, m) for i, ms in enumerate(SECTIONS.values()) for m in ms]
    sections = [
        {
            "uuid": f"section-{i}",
            "name": name,
            "display": True,
            "isReordered": True,
            "deleted": False,
            "isGenerated": False,
        }
        for i, name in enumerate(SECTIONS)
    ]
    return json.dumps(
        {
            "searchFilter": "tags.`kind` = 'trial'",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [
                "params.`arm`",
                "params.`seed`",
                "metrics.`test/common_bits`",
                "metrics.`test/squared_error`",
                "metrics.`test/knn15_accuracy`",
                "metrics.`test/kl`",
                "metrics.`perf/step_ms_p50`",
            ],
            "columnOrder": [],
            "columnWidths": {},
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsVisibilityMap": {},
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": [_chart(i, m, n) for n, (i, m) in enumerate(metrics)],
            "compareRunSections": sections,
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
