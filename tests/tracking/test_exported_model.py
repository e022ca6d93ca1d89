"""A study's winner in MLflow is the whole model, and needs nothing of this package."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from harness import provenance
from harness.api import Model
from harness.models.vae import build
from harness.spec import TrialSpec
from harness.tracking import MlflowTracker
from harness.tracking.model_export import export

STRANGER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "harness":
            raise ImportError("harness is not installed here")

sys.meta_path.insert(0, Refuse())
import mlflow, numpy as np
uri, images, out = sys.argv[1:]
model, x = mlflow.pyfunc.load_model(uri), np.load(images)
z = np.ones((3, 3), dtype=np.float32)
refused = []
for what, value in (("draw", x), ("decode", x), ("encode", 255 * x)):
    try:
        model.predict(value, {"what": what})
    except Exception as fault:
        refused.append(str(fault))
np.savez(
    out,
    reconstruct=model.predict(x),
    encode=model.predict(x[:1], {"what": "encode"}),
    decode=model.predict(z, {"what": "decode"}),
    sample=model.predict(z, {"what": "sample", "seed": 4}),
    refused=refused,
    code=[m for m in sys.modules if m.startswith("harness")],
)
"""


def model_of(spec: TrialSpec, image_shape: tuple[int, int, int] = (1, 8, 8)) -> Model:
    """An untrained model."""
    vae = build(spec, image_shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    return Model(spec=spec, scores={}, history=pd.DataFrame(), vae=vae, image_shape=image_shape)


@pytest.mark.parametrize("likelihood", ["bce", "gaussian_shared", "bernoulli", "continuous_bernoulli", "categorical"])
def test_exported_programs_are_the_model(likelihood: str, tmp_path: Path) -> None:
    model = model_of(TrialSpec(dataset="digits", latent=3, likelihood=likelihood, network="mlp", hidden=(8,)))
    model.save(tmp_path)
    example = export(model.spec, tmp_path / "state_dict.pt", tmp_path)
    encoder, decoder = (torch.export.load(tmp_path / f"{name}.pt2").module() for name in ("encoder", "decoder"))
    for n in (1, 2, 7):
        z = torch.linspace(-1, 1, 3 * n).view(n, 3)
        torch.testing.assert_close(decoder(z).view(n, 8, 8), model.decode(z))
    if model.vae.likelihood.noise == "none":
        for got, wanted in zip(encoder(255 * example), model.encode(example), strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_exported_programs_of_colours_are_the_model(network: str, tmp_path: Path) -> None:
    base = TrialSpec(dataset="shapes", dataset_args={"channels": 3, "size": 32}, network=network, latent=3, activation="relu")
    spec = base.derive(likelihood="logistic_mixture", likelihood_args={"channels": 3, "components": 2})
    model = model_of(spec, (3, 32, 32))
    model.save(tmp_path)
    example = export(spec, tmp_path / "state_dict.pt", tmp_path)
    encoder, decoder = (torch.export.load(tmp_path / f"{name}.pt2").module() for name in ("encoder", "decoder"))
    for n in (1, 4):
        z = torch.linspace(-1, 1, 3 * n).view(n, 3)
        torch.testing.assert_close(decoder(z).view(n, 3, 32, 32), model.decode(z), rtol=1e-4, atol=1e-5)
    for got, wanted in zip(encoder(255 * example), model.encode(example), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_winner_works_where_this_package_is_not_installed(tmp_path: Path, mlflow_store: Path) -> None:
    model = model_of(TrialSpec(dataset="digits", latent=3))
    model.save(tmp_path)
    tracker = MlflowTracker("loss_ablation", "default", "note")
    example = export(model.spec, tmp_path / "state_dict.pt", tmp_path)
    uri = tracker.log_model(tmp_path, example, 3)
    info = mlflow.models.get_model_info(uri)
    assert {p.name: p.default for p in info.signature.params} == {"what": "reconstruct", "seed": 0}
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    assert f"torch=={provenance.version('torch').split('+')[0]}" in (folder / "requirements.txt").read_text().split()
    assert (folder / "input_example.json").exists()
    np.save(tmp_path / "images.npy", example.numpy())
    command = [sys.executable, "-c", STRANGER, str(folder), str(tmp_path / "images.npy"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    got = np.load(tmp_path / "out.npz")
    assert got["code"].size == 0
    wrong, shape, levels = got["refused"]
    assert "what must be one of reconstruct, encode, decode, sample, got 'draw'" in wrong
    assert "(N, 3), got (2, 64)" in shape
    assert "from 0 to 255; divide" in levels
    wanted = {
        "reconstruct": model.reconstruct(example),
        "encode": torch.cat(model.encode(example[:1]), 1),
        "decode": model.decode(torch.ones(3, 3)),
        "sample": model.sample(3, seed=4),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value.flatten(1), rtol=1e-4, atol=1e-5)
