"""The same model through the trainers of two libraries, as in their manuals: images in a DataLoader, probabilities, default Adam.

What they could do besides is off: no checkpoints, no logger, no validation. Sources: https://lightning.ai/docs/pytorch and
https://pythae.readthedocs.io (Chadebec et al., 2022).
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from harness import devices
from harness.bench.machine import BATCH
from harness.bench.rungs import LIGHTNING, PYTHAE, RATE, USUAL, ReferenceModel, mnist
from harness.data.torchvision_door import torchvision
from harness.spec import TrialSpec

Answer = Callable[[dict[str, float]], None]


class Chunk:
    """The clock of a chunk, started with the parent's next line; it ends the process with the parent."""

    def __init__(self, device: torch.device) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.timer, self.cpu = devices.StepTimer(device), time.process_time()

    def spent(self, loss: float) -> dict[str, float]:
        """Return what the parent is answered; `loss` is the chunk's mean in nats per image."""
        self.timer.mark()
        return {"wall": self.timer.seconds()[0], "cpu": time.process_time() - self.cpu, "loss": loss}


def lightning(device: torch.device, images: Tensor, answer: Answer) -> None:
    """Train with Lightning until the parent ends."""
    import lightning as lit

    class Module(lit.LightningModule):  # type: ignore[misc]  # lightning is not there where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.model, self.total = ReferenceModel(), torch.zeros(())

        def training_step(self, batch: tuple[Tensor], index: int) -> Tensor:
            loss = USUAL.loss(self.model, batch[0])
            self.log("loss", loss)
            self.total += loss.detach()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=RATE)

        def on_train_epoch_start(self) -> None:
            self.chunk, self.total = Chunk(device), torch.zeros((), device=device)

        def on_train_epoch_end(self) -> None:
            answer(self.chunk.spent(float(self.total) / len(images)))

    trainer = lit.Trainer(
        max_epochs=-1,
        accelerator="cpu" if device.type == "cpu" else "gpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    answer({})
    trainer.fit(Module(), DataLoader(TensorDataset(images), batch_size=BATCH, shuffle=True))


def pythae(device: torch.device, images: Tensor, answer: Answer) -> None:
    """Train with Pythae until the parent ends."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model = ReferenceModel()

    class Encoder(BaseEncoder):  # type: ignore[misc]  # nor is pythae
        def __init__(self) -> None:
            super().__init__()
            self.layers = model.encoder

        def forward(self, x: Tensor) -> Any:
            mean, log_var = self.layers(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):  # type: ignore[misc]  # nor is pythae
        def __init__(self) -> None:
            super().__init__()
            self.layers = model.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    config = VAEConfig(input_dim=tuple(images.shape[1:]), latent_dim=TrialSpec().latent, reconstruction_loss="bce")
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            no_cuda=device.type == "cpu",
        )
        trainer = BaseTrainer(
            VAE(config, encoder=Encoder(), decoder=Decoder()),
            train_dataset=BaseDataset(images, torch.ones(len(images))),
            training_config=training,
        )
        trainer.prepare_training()
        answer({})
        epoch = 0
        while True:
            epoch += 1
            chunk = Chunk(device)
            answer(chunk.spent(trainer.train_step(epoch)))


def main() -> None:
    """Run the child: read a job, then train an epoch of `steps` steps per line until the parent ends."""
    job = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    logging.disable(logging.WARNING)
    torch.set_num_threads(job["threads"])
    torchvision()  # as it has to be imported beside a CPU build of torch; the libraries import it too
    images = mnist().train.levels[: job["steps"] * BATCH].float() / 255
    train = {LIGHTNING: lightning, PYTHAE: pythae}[job["name"]]
    train(torch.device(job["device"]), images, lambda values: print(json.dumps(values), file=answers, flush=True))


if __name__ == "__main__":
    main()
