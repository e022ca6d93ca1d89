"""The code of a winner in MLflow: a pyfunc model that needs torch and MLflow, but not this package.

MLflow copies this file beside the model and runs it there, so nothing of the package may be imported here, nor this file by it.
Shapes: N images, P pixels, Z latents.
"""

from typing import Any

import mlflow
import numpy as np
import torch

KINDS = ("reconstruct", "encode", "decode", "sample")


class Winner(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A trained VAE, as an exported program of its encoder and one of its decoder."""

    def load_context(self, context: Any) -> None:
        """Load the programs."""
        self.encoder, self.decoder = (torch.export.load(context.artifacts[name]).module() for name in ("encoder", "decoder"))
        self.pixels, self.latent = (int(context.model_config[name]) for name in ("pixels", "latent"))

    @torch.no_grad()
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Return what `params["what"]` asks for, float32.

        Args:
            context: Not used.
            model_input: For `reconstruct` and `encode` images, (N, P), floats in [0, 1], which are rounded to 256 levels; for
                `decode` latents, (N, Z); for `sample` any array of N rows.
            params: `what`, and for `sample` the `seed`.

        Returns:
            Mean images on [0, 1], (N, P), or for `encode` mean and log variance of q(z|x) side by side, (N, 2 Z).

        Raises:
            ValueError: Another `what`, or an input of another shape or range.
        """
        what, seed = params["what"], params["seed"]
        if what not in KINDS:
            raise ValueError(f"what must be one of {', '.join(KINDS)}, got {what!r}")
        values = torch.from_numpy(np.array(model_input, dtype=np.float32))
        if what == "sample":
            generator = torch.Generator().manual_seed(seed)
            return self._decoded(torch.randn(len(values), self.latent, generator=generator))
        width = self.latent if what == "decode" else self.pixels
        if values.dim() != 2 or values.shape[1] != width:
            raise ValueError(f"{what} takes an input of shape (N, {width}), got {tuple(values.shape)}")
        if what == "decode":
            return self._decoded(values)
        if not ((values >= 0) & (values <= 1)).all():
            low, high = values.min().item(), values.max().item()
            raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}; divide grey levels by 255")
        mean, log_var = self.encoder((values * 255).round())
        if what == "reconstruct":
            return self._decoded(mean)
        codes: np.ndarray = torch.cat([mean, log_var], 1).numpy()
        return codes

    def _decoded(self, z: torch.Tensor) -> np.ndarray:
        """Return the mean images of latents z (N, Z), (N, P)."""
        images: np.ndarray = self.decoder(z).clamp(0, 1).numpy()
        return images


mlflow.models.set_model(Winner())
