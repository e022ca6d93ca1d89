"""A convolutional encoder and decoder: ordinary modules for one model, for images of any size."""

from torch import Tensor, nn


class Encoder(nn.Sequential):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = super().forward(x).chunk(2, dim=1)
        return mean, log_var


def conv(image_shape: tuple[int, int, int], latent: int, outputs: int, width: int = 16) -> tuple[nn.Module, nn.Module]:
    """Return an encoder, (B, C, H, W) to mean and log variance (B, Z), and a decoder, (B, Z) to (B, outputs, C, H, W)."""
    channels, rows, columns = image_shape
    cells = (-(-rows // 4), -(-columns // 4))
    encoder = Encoder(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(2 * width * cells[0] * cells[1], 2 * latent),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 2 * width * cells[0] * cells[1]),
        nn.Unflatten(1, (2 * width, *cells)),
        nn.SiLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Upsample(size=(rows, columns)),
        nn.Conv2d(width, outputs * channels, 3, padding=1),
        nn.Unflatten(1, (outputs, channels)),
    )
    return encoder, decoder
