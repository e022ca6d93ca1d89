import math
import subprocess
import sys

import pytest

from harness import catalog, paths
from harness.errors import UserError
from harness.spec import FIELDS, REAL_FIELDS, TrialSpec

EXAMPLES = paths.PROJECT / "examples"
LANE_FIELDS = {
    "seed",
    "learning_rate",
    "beta",
    "weight_decay",
    "kl_warmup",
    "kl_cycle",
    "free_bits",
    "learning_rate_decay",
    "learning_rate_schedule",
    "learning_rate_warmup",
    "clip_norm",
    "ema_decay",
    "patience",
}

# A spec and one other value for every field.
OTHERS = {
    "dataset": (TrialSpec(), "digits"),
    "dataset_args": (TrialSpec(dataset=f"{EXAMPLES}/own_data/shapes.py:shapes"), {"side": 12}),
    "fit_on": (TrialSpec(), "train+validation"),
    "likelihood": (TrialSpec(), "mse"),
    "likelihood_args": (TrialSpec(likelihood="bernoulli"), {"binarisation": "static"}),
    "network_args": (TrialSpec(network=f"{EXAMPLES}/own_network/networks.py:conv"), {"widths": 3}),
    "metrics": (TrialSpec(), (f"{EXAMPLES}/own_score/sharpness.py:SHARPNESS",)),
    "network": (TrialSpec(), "mlp"),
    "hidden": (TrialSpec(network="mlp"), (64,)),
    "activation": (TrialSpec(), "relu"),
    "latent": (TrialSpec(), 3),
    "batch_size": (TrialSpec(), 64),
    "epochs": (TrialSpec(), 1),
    "optimizer": (TrialSpec(), "adamw"),
    "seed": (TrialSpec(), 1),
    "learning_rate": (TrialSpec(), 1e-3),
    "beta": (TrialSpec(), 2.0),
    "weight_decay": (TrialSpec(), 0.1),
    "kl_warmup": (TrialSpec(), 1.0),
    "kl_cycle": (TrialSpec(kl_warmup=1.0), 2.0),
    "free_bits": (TrialSpec(), 0.5),
    "learning_rate_decay": (TrialSpec(), 0.1),
    "learning_rate_schedule": (TrialSpec(), "constant"),
    "learning_rate_warmup": (TrialSpec(), 1.5),
    "clip_norm": (TrialSpec(), 0.5),
    "ema_decay": (TrialSpec(), 0.999),
    "patience": (TrialSpec(), 3),
    "objective": (TrialSpec(), "iwae"),
    "num_samples": (TrialSpec(), 5),
    "precision": (TrialSpec(), "bf16"),
    "evaluation": (TrialSpec(), "full"),
}

BAD = [
    ({"latent": 0}, "latent"),
    ({"latent": 2.0}, "latent"),
    ({"latent": True}, "latent"),
    ({"epochs": 0}, "epochs"),
    ({"batch_size": 0}, "batch_size"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**31}, "seed"),
    ({"learning_rate": 0}, "learning_rate"),
    ({"learning_rate": float("nan")}, "learning_rate"),
    ({"learning_rate": float("inf")}, "learning_rate"),
    ({"learning_rate": "0.1"}, "learning_rate"),
    ({"learning_rate": -1e-3}, "learning_rate"),
    ({"beta": -1}, "beta"),
    ({"weight_decay": -1}, "weight_decay"),
    ({"kl_warmup": float("nan")}, "kl_warmup"),
    ({"likelihood_args": {"binarisation": "static"}}, "binarisation"),
    ({"likelihood_args": {"binarisation": "none"}, "likelihood": "bernoulli"}, "binarisation"),
    ({"likelihood_args": 3}, "likelihood_args"),
    ({"likelihood_args": {"df": object()}}, "likelihood_args"),
    ({"network_args": {"depth": 3}}, "depth"),
    ({"network": "conv", "network_args": {"widths": (8, 0)}}, "widths"),
    ({"network": "conv", "network_args": {"widths": 8}}, "widths"),
    ({"network": "conv", "network_args": {"widths": ()}}, "widths"),
    ({"network": "conv", "network_args": {"kernel": 1}}, "kernel"),
    ({"network": "conv", "network_args": {"kernel": 3.0}}, "kernel"),
    ({"network": "conv", "network_args": {"kernel": True}}, "kernel"),
    ({"network": "resnet", "network_args": {"blocks": 0}}, "blocks"),
    ({"network": "mlp", "network_args": {"norm": 1}}, "norm"),
    ({"metrics": "psnr"}, "metrics"),
    ({"hidden": (10,)}, "hidden"),
    ({"network": "mlp", "hidden": (0,)}, "hidden"),
    ({"network": "mlp", "hidden": 256}, "hidden"),
    ({"network": "mlp", "hidden": "256"}, "hidden"),
    ({"likelihood_args": {"sigma": 0.5}}, "sigma"),
    ({"likelihood_args": {"sigma": 0}, "likelihood": "mse"}, "sigma"),
    ({"objective": "iwea"}, "objective"),
    ({"num_samples": 0}, "num_samples"),
    ({"evaluation": "deep"}, "evaluation"),
    ({"free_bits": -1}, "free_bits"),
    ({"clip_norm": -1}, "clip_norm"),
    ({"clip_norm": None}, "clip_norm"),
    ({"ema_decay": 1.5}, "ema_decay"),
    ({"ema_decay": float("nan")}, "ema_decay"),
    ({"patience": 1.5}, "patience"),
    ({"patience": -1}, "patience"),
    ({"patience": 3, "fit_on": "train+validation"}, "patience"),
    ({"learning_rate_decay": 0}, "learning_rate_decay"),
    ({"kl_cycle": 5.0}, "kl_cycle"),
    ({"kl_cycle": 5.0, "kl_warmup": 6.0}, "kl_cycle"),
    ({"objective": "iwae", "beta": 2.0}, "beta"),
    ({"objective": "dreg", "free_bits": 0.1}, "free_bits"),
    ({"objective": "dreg", "kl_warmup": 1.0}, "kl_warmup"),
]


MESSAGES = [
    ({"likelihood_args": {"sigma": 0.5}}, "likelihood 'bce' takes no argument 'sigma'; it takes: none"),
    (
        {"network": "conv", "network_args": {"widths": (16, 2.5)}},
        "network_args.widths must be a tuple of one or more whole numbers of at least 1, such as (16, 32), got (16, 2.5)",
    ),
    ({"network": "conv", "network_args": {"kernel": 1}}, "network_args.kernel must be a whole number of at least 2, got 1"),
    ({"network": "mlp", "network_args": {"residual": "yes"}}, "network_args.residual must be True or False, got 'yes'"),
    (
        {"likelihood_args": {"sgima": 2}, "likelihood": "mse"},
        "likelihood 'mse' takes no argument 'sgima'; it takes: sigma",
    ),
    *[
        (
            {"likelihood_args": {"sigma": s}, "likelihood": "mse"},
            f"likelihood_args.sigma must be a finite number above 0, got {s!r}",
        )
        for s in (-0.5, math.inf, True, "1")
    ],
    ({"objective": "iwea"}, "unknown objective 'iwea'; did you mean 'iwae'?\nknown: elbo, iwae, dreg"),
    ({"evaluation": "ful"}, "unknown evaluation 'ful'; did you mean 'full'?\nknown: validation, quick, full, thorough"),
    *[
        ({"num_samples": n}, f"num_samples must be a whole number from 1 to 2**31 - 1, got {n!r}")
        for n in (0, 2.0, True, 2**31, "3")
    ],
    *[
        ({name: value}, f"{name} must be a finite number of at least 0, got {value!r}")
        for name in ("free_bits", "kl_cycle")
        for value in (-0.5, math.inf, math.nan, True, "1", None)
    ],
    *[
        ({"learning_rate_decay": value}, f"learning_rate_decay must be a finite number above 0, got {value!r}")
        for value in (0.0, -0.1, math.nan, "1")
    ],
    *[
        ({"objective": objective, name: value}, f"{name}={value!r} is for the objective 'elbo', got {objective!r}")
        for objective in ("iwae", "dreg")
        for name, value in {"beta": 0.0, "kl_warmup": 1.0, "free_bits": 0.1}.items()
    ],
    *[
        (
            {"kl_cycle": 5.0, "kl_warmup": warmup},
            f"kl_cycle=5.0 takes a kl_warmup above 0 and no longer than itself, got {warmup!r}",
        )
        for warmup in (0.0, 5.5)
    ],
]


@pytest.mark.parametrize(("values", "message"), MESSAGES, ids=str)
def test_a_fault_of_the_objective_is_told_in_these_words(values: dict, message: str) -> None:
    with pytest.raises(UserError) as fault:
        TrialSpec(**values)
    assert str(fault.value) == message


def test_what_is_just_allowed_is_allowed() -> None:
    assert TrialSpec(kl_cycle=5.0, kl_warmup=5.0).kl_cycle == 5
    assert TrialSpec(likelihood="mse").likelihood_args == {"sigma": 1}
    assert TrialSpec(objective="iwae", num_samples=1, beta=1, learning_rate_decay=0.1).beta == 1


def test_a_warm_up_that_is_no_number_is_refused_with_a_cycle_too() -> None:
    with pytest.raises(UserError, match="kl_warmup"):
        TrialSpec(kl_cycle=5.0, kl_warmup="1")


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_id(field: str) -> None:
    base, other = OTHERS[field]
    assert base.derive(**{field: other}).id != base.id


@pytest.mark.parametrize("field", FIELDS)
def test_the_cohort_forgets_lane_fields_only(field: str) -> None:
    base, other = OTHERS[field]
    assert (base.derive(**{field: other}).cohort == base.cohort) == (field in LANE_FIELDS)


def test_equal_specs_have_equal_ids() -> None:
    assert TrialSpec(likelihood="bernoulli") == TrialSpec(likelihood="bernoulli", likelihood_args={"binarisation": "dynamic"})
    assert TrialSpec(likelihood="bernoulli").id == TrialSpec(likelihood="bernoulli", likelihood_args={"binarisation": "dynamic"}).id
    assert TrialSpec(network="mlp", hidden=[8, 4]).id == TrialSpec(network="mlp", hidden=(8, 4)).id


@pytest.mark.parametrize("field", REAL_FIELDS)
def test_a_whole_number_is_the_same_trial_as_its_float(field: str) -> None:
    needed = {"kl_cycle": {"kl_warmup": 1.0}}.get(field, {})
    whole, real = TrialSpec(**needed, **{field: 1}), TrialSpec(**needed, **{field: 1.0})
    assert whole == real
    assert whole.id == real.id


def test_the_id_is_the_same_in_another_process() -> None:
    program = "from harness.spec import TrialSpec; print(TrialSpec(seed=3, hidden=(8, 4), network='mlp').id)"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == TrialSpec(seed=3, hidden=(8, 4), network="mlp").id


@pytest.mark.parametrize("field", FIELDS)
def test_as_dict_and_back(field: str) -> None:
    base, other = OTHERS[field]
    spec = base.derive(**{field: other})
    again = TrialSpec.from_dict(spec.as_dict())
    assert again == spec
    assert again.id == spec.id


@pytest.mark.parametrize(("values", "field"), BAD)
def test_a_bad_value_is_refused_by_its_field(values: dict, field: str) -> None:
    with pytest.raises(UserError, match=field):
        TrialSpec(**values)


@pytest.mark.parametrize("field", [*catalog.TABLES, *catalog.WORDS])
def test_an_unknown_name_is_refused_with_the_nearest(field: str) -> None:
    known = catalog.names(field)[0]
    with pytest.raises(UserError, match=f"unknown {field} '{known}x'; did you mean '{known}'"):
        TrialSpec(**{field: known + "x"})


def test_an_unknown_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'lerning_rate'; did you mean 'learning_rate'"):
        TrialSpec().derive(lerning_rate=1)
    with pytest.raises(UserError, match="'zdim'"):
        TrialSpec.from_dict({"zdim": 2})


def test_all_faults_come_at_once() -> None:
    with pytest.raises(UserError) as fault:
        TrialSpec(activation="rleu", latent=0, learning_rate=-1)
    assert all(word in str(fault.value) for word in ("relu", "latent", "learning_rate"))


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, (table, _) in catalog.TABLES.items() for n in table])
def test_every_name_is_defined_where_the_catalog_says(kind: str, name: str) -> None:
    assert callable(catalog.find(kind, name))


def test_scales_tell_binarisations_apart() -> None:
    dynamic = TrialSpec(likelihood="bernoulli")
    assert dynamic.scale != dynamic.derive(likelihood_args={"binarisation": "threshold"}).scale
    assert TrialSpec(likelihood="mse").scale == TrialSpec(likelihood="gaussian_shared").scale


def test_studies_load_without_torch() -> None:
    program = "import sys; from harness import study; [study.load_study(n) for n in study.names()]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_widths_do_not_outlive_the_network_that_has_them() -> None:
    wide = TrialSpec(network="mlp", hidden=(8, 4))
    assert wide.derive(network="reference") == TrialSpec()
    assert wide.derive(network="conv") == TrialSpec(network="conv")
    assert wide.derive(seed=1).hidden == (8, 4)
    with pytest.raises(UserError, match="is for the network 'mlp', got 'conv'"):
        wide.derive(network="conv", hidden=(8, 4))
