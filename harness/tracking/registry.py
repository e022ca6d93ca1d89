"""A study's winner in MLflow's model registry, where it has a name, a version for each winner, and the alias `winner`."""

import re
from typing import Any

from harness.tracking import library

ALIAS = "winner"
LONGEST = 200  # characters of a model's name
CELL = "cell"  # the tag of a version that has the id of the winner's trial


def model_name(experiment: str) -> str:
    """Return the name of a study's winner in the registry, of characters that a registry takes.

    >>> model_name("loss_ablation-smoke"), model_name("mine[dataset=npz:a/b.npz]")
    ('vae-harness.loss_ablation-smoke', 'vae-harness.mine[dataset=npz_a_b.npz]')
    """
    return re.sub(r"[/:]", "_", f"vae-harness.{experiment}")[:LONGEST]


def register(client: Any, experiment: str, cell: str, uri: str, run: str, description: str) -> str:
    """Enter a winner in the registry, unless it is there, and give its version the alias; return its name and version in words.

    What keeps a registry from taking it is returned in words too: a report must not fail for that.

    Args:
        client: of MLflow.
        experiment: the name of the study's experiment.
        cell: the id of the winner's trial, which has a version of its own.
        uri: of its model.
        run: of its trial, whose scores and parameters MLflow shows beside the model.
        description: what it is, in Markdown.
    """
    name = model_name(experiment)
    try:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description=f"The best trials of {experiment}, the newest of alias `{ALIAS}`.")
        versions = client.search_model_versions(f"name = '{name}'")
        own = [v for v in versions if v.tags.get(CELL) == cell and v.source == uri]
        if not own:
            own = [client.create_model_version(name, uri, run_id=run, tags={CELL: cell}, description=description)]
        client.set_registered_model_alias(name, ALIAS, own[0].version)
    except library.failures(OSError) as fault:
        return f"none: {str(fault).partition(chr(10))[0][:300]}"
    return f"{name}, version {own[0].version}"
