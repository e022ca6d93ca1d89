"""Signs of trouble, in models made to have them."""

import pytest
import torch

from harness.metrics.diagnostics import dead_units, nan_count, noise
from harness.models.vae import VAE, build
from harness.spec import TrialSpec


def model(likelihood: str = "bce", activation: str = "relu", network: str = "mlp") -> tuple[TrialSpec, VAE, torch.Tensor]:
    fields = {"hidden": (20, 10)} if network == "mlp" else {}
    spec = TrialSpec(network=network, activation=activation, likelihood=likelihood, latent=3, **fields)
    vae = build(spec, image_shape=(1, 4, 4))
    vae.reset(0, torch.Generator().manual_seed(0))
    return spec, vae, torch.rand(300, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("activation", "bias"), [("relu", -1e3), ("tanh", 1e3), ("sigmoid", -1e3)])
def test_a_dead_unit_is_found_in_its_place(activation: str, bias: float) -> None:
    _, vae, x = model(activation=activation)
    before = {name: units.clone() for name, units in dead_units(vae, x, 3).items()}
    with torch.no_grad():
        vae.encoder.body.layers[1].bias[0, 0, 4] = bias
        vae.decoder.body.layers[0].bias[0, 0, 7] = bias
    after = dead_units(vae, x, 3)
    assert {name: len(units) for name, units in after.items()} == {
        "encoder_1": 20,
        "encoder_2": 10,
        "decoder_1": 10,
        "decoder_2": 20,
    }
    changed = [(name, i) for name in after for i in range(len(after[name])) if after[name][i] != before[name][i]]
    assert changed == [("encoder_2", 4), ("decoder_1", 7)]
    assert after["encoder_2"][4]
    assert after["decoder_1"][7]


def test_a_unit_that_nothing_listens_to_is_dead() -> None:
    _, vae, x = model(activation="elu")
    assert not any(units.any() for units in dead_units(vae, x, 3).values())
    with torch.no_grad():
        vae.decoder.body.layers[1].weight[0, 3] = 0  # what comes from unit 3 of the layer before
    found = dead_units(vae, x, 3)
    assert found["decoder_1"].nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("network", ["mlp", "reference"])
def test_a_layer_without_an_activation_has_no_dead_unit(network: str) -> None:
    _, vae, x = model(activation="identity", network=network)
    with torch.no_grad():
        for layer in (*vae.encoder.body.layers[:-1], *vae.decoder.body.layers[:-1]):
            layer.bias[0, 0, 0] = -1e3  # what kills a relu
    found = dead_units(vae, x, 3)
    assert len(found) == {"mlp": 4, "reference": 6}[network]
    assert not any(units.any() for units in found.values())


def test_the_references_own_quirk_cannot_die() -> None:
    _, vae, x = model(network="reference")
    with torch.no_grad():
        for layer in (0, 1):
            vae.decoder.body.layers[layer].bias[0, 0, 5] = -1e3
    found = dead_units(vae, x, 3)
    assert not found["decoder_1"].any()  # nothing after it but the next map
    assert found["decoder_2"][5]


def test_looking_leaves_no_trace() -> None:
    _, vae, x = model()
    dead_units(vae, x, 3)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in vae.modules())
    assert all(p.grad is None for p in vae.parameters())


def test_effective_beta_is_one_where_sigma_fits() -> None:
    spec, vae, x = model("mse")
    wide = noise(spec, vae, x)
    residual = 1 / wide["diagnostics/effective_beta"]  # sigma = 1: the mean square itself
    assert wide["test/noise_scale"] == 1
    assert "diagnostics/scale_at_floor" not in wide
    fitted = spec.derive(likelihood_args={"sigma": residual**0.5})
    same = build(fitted, image_shape=(1, 4, 4))
    same.load_state_dict(vae.state_dict())
    assert noise(fitted, same, x)["diagnostics/effective_beta"] == pytest.approx(1, rel=1e-5)
    assert noise(fitted.derive(beta=4.0), same, x)["diagnostics/effective_beta"] == pytest.approx(4, rel=1e-5)
    assert noise(*model("bce"))["diagnostics/effective_beta"] == 1


def test_effective_beta_of_mse_is_one_over_the_mean_squared_residual() -> None:
    spec, vae, x = model("mse")
    mean, log_var = vae.encoder(x[None])
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    image = vae.decode(mean + (log_var / 2).exp() * eps)[0].sigmoid()
    wanted = 1 / (x - image[0]).square().mean().item()
    assert noise(spec, vae, x, seed=7)["diagnostics/effective_beta"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian_shared", "laplace"])
def test_a_scale_on_its_floor_is_told(likelihood: str) -> None:
    spec, vae, x = model(likelihood)
    assert noise(spec, vae, x)["diagnostics/scale_at_floor"] == 0
    with torch.no_grad():
        vae.shared.fill_(-20.0)
    found = noise(spec, vae, x)
    assert found["diagnostics/scale_at_floor"] == 1
    assert found["test/noise_scale"] == pytest.approx(1 / 510, rel=0.01)
    assert found["diagnostics/effective_beta"] < 0.01


def test_weights_that_are_not_finite_are_counted() -> None:
    _, vae, _ = model()
    assert nan_count(vae) == 0
    with torch.no_grad():
        vae.encoder.body.layers[0].weight[0, 0, :3] = torch.tensor([float("nan"), float("inf"), 1.0])
    assert nan_count(vae) == 2
