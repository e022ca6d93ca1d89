import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness import data
from harness.data import Data, Split
from harness.errors import DataError
from harness.metrics import features
from harness.metrics.feature_kinds import network_of
from harness.metrics.features import VERSION, FeatureNet, feature_net
from harness.metrics.samples import balls, frechet, precision_recall


@pytest.fixture(scope="module")
def digits() -> Data:
    return data.load_dataset("digits")


@pytest.fixture(scope="module")
def template(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureNet]:
    """A folder with the classifier of digits, trained once for all tests, and the classifier."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(folder))
        return folder, feature_net(digits, lambda line: None)


def made_up(image_shape: tuple[int, int, int], classes: int, images: int = 200) -> Data:
    """Images of a spot whose place and colour depend on the class, where there are any, and on chance."""
    g = torch.Generator().manual_seed(0)
    channels, height, width = image_shape

    def split(name: str) -> Split:
        kind = torch.randint(max(classes, 4), (images,), generator=g)
        row, column, colour = (torch.rand(images, 1, 1, generator=g) for _ in range(3))
        y, x = torch.arange(height)[:, None], torch.arange(width)
        away = (y - height * (0.2 + 0.6 * (kind % 2)[:, None, None]) - row).square() + (x - width * column).square()
        spot = 255 * torch.exp(-away / (1 + kind // 2)[:, None, None]) * (0.5 + colour / 2)
        levels = torch.stack([spot * (1 - c / (2 * channels)) for c in range(channels)], 1).to(torch.uint8)
        return Split(name, levels.flatten(1), kind.clamp_max(classes - 1) if classes else None)

    train, validation, test = map(split, ("train", "validation", "test"))
    digest = f"{image_shape}, {classes}"
    return Data(name="made_up", image_shape=image_shape, train=train, validation=validation, test=test, digest=digest)


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("features/*.pt")
    return file


# -------------------------------------------------------------------------------- the classifier


def test_it_knows_the_digits(template: tuple[Path, FeatureNet], digits: Data) -> None:
    found = template[1]
    assert found.quality > 0.9
    seen = found.features(digits.test.levels / 255)
    assert seen.shape == (len(digits.test), 64)
    assert (seen.std(0) > 1e-3).all(), "a feature that never changes"
    guess = found.network[-1](seen).argmax(1)
    assert (guess == digits.test.labels).double().mean().item() == pytest.approx(found.quality)


def test_features_do_not_depend_on_batches(template: tuple[Path, FeatureNet], digits: Data) -> None:
    images = digits.test.levels / 255
    torch.testing.assert_close(template[1].features(images, batch_size=7), template[1].features(images))


def test_the_second_call_does_not_train(template: tuple[Path, FeatureNet], digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, trained = template
    monkeypatch.setenv("HARNESS_DATA", str(folder))
    state = torch.get_rng_state()
    again = feature_net(digits, pytest.fail)
    assert torch.equal(torch.get_rng_state(), state)
    assert (again.digest, again.quality) == (trained.digest, trained.quality)
    images = digits.test.levels / 255
    assert torch.equal(again.features(images), trained.features(images))


def test_a_second_training_gives_the_same_weights_and_leaves_the_process_as_it_was(
    template: tuple[Path, FeatureNet], digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    torch.manual_seed(99)
    before, threads, said = torch.get_rng_state(), torch.get_num_threads(), list[str]()
    torch.set_num_threads(2)
    try:
        again = feature_net(digits, said.append)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert said[0] == "training the feature classifier for digits ..."
    assert again.digest == template[1].digest
    assert torch.equal(torch.get_rng_state(), before)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5_000])


def of_other_weights(file: Path) -> None:
    kept = torch.load(file, weights_only=True)
    kept["weights"]["8.bias"][0] += 1
    torch.save(kept, file)


def of_another_shape(file: Path) -> None:
    torch.save([1, 2, 3], file)


def no_archive(file: Path) -> None:
    file.write_bytes(b"<html>not found</html>")


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, of_other_weights, of_another_shape, no_archive, empty])
def test_a_damaged_file_is_not_loaded(
    template: tuple[Path, FeatureNet],
    digits: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    file = tmp_path / "features" / only_file(template[0]).name
    file.parent.mkdir()
    file.write_bytes(only_file(template[0]).read_bytes())
    said: list[str] = []
    feature_net(digits, pytest.fail)
    damage(file)
    feature_net(digits, said.append, train=lambda _: template[1])
    assert said[0] == "training the feature classifier for digits, for its file is damaged ..."


def test_a_damaged_file_is_trained_again(
    template: tuple[Path, FeatureNet], digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    file = tmp_path / "features" / only_file(template[0]).name
    file.parent.mkdir()
    file.write_bytes(b"PK")
    said: list[str] = []
    assert feature_net(digits, said.append).digest == template[1].digest
    assert "damaged" in said[0]
    assert feature_net(digits, pytest.fail).digest == template[1].digest


def test_mnist_has_its_network_from_the_package_unless_there_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = data.load_dataset("mnist")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    found = feature_net(mnist, pytest.fail)
    guess = found.network[-1](found.test_features(mnist)).argmax(1)
    assert (guess == mnist.test.labels).double().mean().item() == pytest.approx(
        found.quality, abs=2e-4
    )  # rounding of another machine
    assert not (tmp_path / "features").exists()
    state = {name: value + 1e-3 for name, value in found.network.state_dict().items()}
    another = replace(found, network=network_of(mnist).requires_grad_(False))
    another.network.load_state_dict(state)
    another = replace(another, digest=features._digest(another.network))
    (tmp_path / "features").mkdir()
    features._save(another, tmp_path / "features" / next(features.PACKAGED.glob("mnist-*.pt")).name)
    assert feature_net(mnist, pytest.fail).digest == another.digest != found.digest


def test_who_meets_at_an_empty_folder_trains_once(
    template: tuple[Path, FeatureNet], digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    trainings: list[str] = []
    digests: list[str] = []

    def train(data: Data) -> FeatureNet:
        trainings.append(data.name)
        return template[1]

    def meet() -> None:
        digests.append(feature_net(digits, lambda line: None, train=train).digest)

    threads = [threading.Thread(target=meet) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert trainings == ["digits"]
    assert digests == [template[1].digest] * 4


def test_another_recipe_or_other_bytes_are_another_file(
    template: tuple[Path, FeatureNet], digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    for images, version in ((digits, VERSION), (replace(digits, digest="0" * 64), VERSION), (digits, 999)):
        feature_net(images, lambda line: None, version=version, train=lambda _: template[1])
    assert len(list(tmp_path.glob("features/*.pt"))) == 3


def test_a_folder_that_cannot_be_written_is_told(digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features").write_text("a file where the folder should be")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="HARNESS_DATA"):
        feature_net(digits, lambda line: None)


@pytest.mark.parametrize(("image_shape", "classes"), [((1, 28, 28), 10), ((3, 9, 6), 5), ((1, 1, 3), 0), ((2, 16, 11), 1)])
def test_the_network_fits_images_of_any_shape(image_shape: tuple[int, int, int], classes: int) -> None:
    images = made_up(image_shape, classes)
    network, x = network_of(images), images.train.levels[:2] / 255
    assert network[:-1](x).shape == (2, 64)
    assert network(x).shape == (2, classes) if classes > 1 else network(x).shape == x.shape


def test_the_classifier_of_mnist_is_the_one_of_old() -> None:
    """Files of earlier versions stay valid; the weights are those that results on record were scored with."""
    network = network_of(data.load_dataset("mnist"))
    shapes = [tuple(p.shape) for p in network.state_dict().values()]
    assert list(network.state_dict()) == [f"{i}.{name}" for i in (1, 3, 6, 8) for name in ("weight", "bias")]
    assert shapes == [(16, 1, 5, 5), (16,), (32, 16, 5, 5), (32,), (64, 32 * 49), (64,), (10, 64), (10,)]


def test_labels_may_be_any_numbers_and_those_of_test_images_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of classes only name them; a test image of a class that was not trained on is not classified correctly."""
    monkeypatch.setattr(features, "STEPS", 40)
    plain = made_up((3, 8, 6), 4)
    named = replace(plain, train=replace(plain.train, labels=plain.train.classes * 1_000 - 7))
    named = replace(named, test=replace(plain.test, labels=plain.test.classes * 1_000 - 7))
    net, other = features._train(plain), features._train(named)
    assert net.digest == other.digest
    assert net.quality == other.quality > 0.35
    strange = replace(named, test=replace(plain.test, labels=torch.full_like(plain.test.classes, 5)))
    assert features._train(strange).quality == 0


# -------------------------------------------------------------------------------- the autoencoder


COLOUR = (3, 8, 6)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Data, FeatureNet, list[str]]:
    """A folder with the network of colour images without labels, the images, the network, and what was said of its training."""
    folder, images, said = tmp_path_factory.mktemp("unlabelled"), made_up(COLOUR, 0), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(folder))
        patch.setattr(features, "STEPS", 60)
        return folder, images, feature_net(images, said.append), said


def test_images_without_classes_have_an_autoencoder(autoencoder: tuple[Path, Data, FeatureNet, list[str]]) -> None:
    """It shows images better than their mean does."""
    _, images, net, said = autoencoder
    x, test = (split.levels / 255 for split in (images.train, images.test))
    assert net.quality == pytest.approx((net.network(test) - test).square().mean().item(), rel=1e-5)
    assert net.quality < 0.5 * (test - x.mean(0)).square().mean()
    assert said[0] == "training the feature autoencoder for made_up ..."
    assert said[1].startswith(f"trained it to a test error of {net.quality:.4f}: ")
    assert net.in_words == f"an autoencoder (test error {net.quality:.4f})"
    assert net.name == f"{net.digest}-autoencoder"


def test_an_autoencoder_is_the_same_each_time_and_kept_beside_a_classifier(
    autoencoder: tuple[Path, Data, FeatureNet, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, images, net, _ = autoencoder
    monkeypatch.setenv("HARNESS_DATA", str(folder))
    monkeypatch.setattr(features, "STEPS", 60)
    test = images.test.levels / 255
    assert net.features(test).shape == (len(test), 64)
    assert torch.equal(feature_net(images, pytest.fail).features(test), net.features(test))
    assert features._train(images).digest == net.digest
    one_class = replace(images.train, labels=torch.zeros(len(images.train), dtype=torch.int64))
    assert feature_net(replace(images, train=one_class), pytest.fail).digest == net.digest  # there is nothing to tell apart
    labelled = made_up(COLOUR, 4)
    trained = feature_net(
        replace(labelled, digest=images.digest), lambda line: None, train=lambda _: replace(net, kind="classifier")
    )
    assert trained.kind == "classifier"
    assert feature_net(images, pytest.fail).kind == "autoencoder"


def test_distances_on_an_autoencoder_tell_images_from_noise(autoencoder: tuple[Path, Data, FeatureNet, list[str]]) -> None:
    _, images, net, _ = autoencoder
    real, validation = net.test_features(images), net.features(images.validation.levels / 255)
    noise = net.features(torch.rand(images.test.levels.shape, generator=torch.Generator().manual_seed(0)))
    assert frechet(real, validation) < 0.1 * frechet(real, noise)


def test_features_of_large_images_take_fewer_at_a_time(
    autoencoder: tuple[Path, Data, FeatureNet, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, data, net, _ = autoencoder
    images = data.test.levels / 255
    whole = net.features(images)
    monkeypatch.setattr(features, "VALUES", 16 * 4 * 3 * 5)  # what the first layer gives for five images
    rows: list[int] = []
    hook = net.network[2].register_forward_pre_hook(lambda _, x: rows.append(len(x[0])))
    torch.testing.assert_close(net.features(images), whole)
    hook.remove()
    assert max(rows) == 5


# -------------------------------------------------------------------------------- Frechet distance


def of_moments(mean: Tensor, covariance: Tensor, n: int = 500, seed: int = 0) -> Tensor:
    """n points whose sample mean and (unbiased) sample covariance are exactly these."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, len(mean), generator=g, dtype=torch.float64)
    x -= x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T).reshape(len(mean), -1)), x.T, upper=False).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def test_frechet_of_gaussians_with_shared_axes() -> None:
    """sum_j (m_j - n_j)^2 + (s_j - t_j)^2."""
    m, n, s, t = torch.tensor([[0.0, 1, 2], [3, 1, -1], [1, 2, 3], [2, 2, 0.5]], dtype=torch.float64)
    a, b = of_moments(m, torch.diag(s**2)), of_moments(n, torch.diag(t**2), n=700, seed=1)
    want = ((m - n).square() + (s - t).square()).sum().item()
    assert frechet(a, b) == pytest.approx(want, rel=1e-10)
    assert frechet(b, a) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_frechet_of_any_gaussians(size: int) -> None:
    """Against the trace of (S_a S_b)^(1/2) by the eigenvalues of the product, which is not symmetric."""
    g = torch.Generator().manual_seed(size)
    roots = torch.randn(2, size, size, generator=g, dtype=torch.float64)
    s, t = roots @ roots.mT + 0.1 * torch.eye(size, dtype=torch.float64)
    m, n = torch.randn(2, size, generator=g, dtype=torch.float64)
    cross = torch.linalg.eigvals(s @ t).real.sqrt().sum()
    want = ((m - n).square().sum() + s.trace() + t.trace() - 2 * cross).item()
    assert frechet(of_moments(m, s), of_moments(n, t, seed=1)) == pytest.approx(want, rel=1e-9)


def test_frechet_of_a_set_with_itself_is_zero() -> None:
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    x[:, 5] = 0  # a feature that never fires
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet(x, x.flip(0)) == pytest.approx(0, abs=1e-10)
    assert frechet(x[:20], x[:20]) == pytest.approx(0, abs=1e-10)  # fewer points than features
    assert frechet(x, x + 2) == pytest.approx(4 * 64, rel=1e-6)


# -------------------------------------------------------------------------------- precision and recall


def naive_precision_recall(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    def share(points: Tensor, members: Tensor) -> float:
        hits = 0
        for p in points:
            for i, q in enumerate(members):
                others = sorted(math.dist(q, r) for j, r in enumerate(members) if j != i)
                if math.dist(p, q) <= others[k - 1]:
                    hits += 1
                    break
        return hits / len(points)

    return share(fake, real), share(real, fake)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_the_naive_ones(k: int) -> None:
    g = torch.Generator().manual_seed(k)
    real = torch.randn(31, 2, generator=g, dtype=torch.float64)
    fake = 0.6 * torch.randn(23, 2, generator=g, dtype=torch.float64) + 0.5
    want = naive_precision_recall(real, fake, k)
    assert want[0] != want[1]
    assert precision_recall(real, fake, k) == pytest.approx(want)
    assert precision_recall(real, fake, k, batch_size=7) == pytest.approx(want)
    assert precision_recall(real, fake, k, real_balls=balls(real, k)) == pytest.approx(want)
    assert precision_recall(fake, real, k, batch_size=7) == pytest.approx(want[::-1])


def test_precision_and_recall_of_the_same_set_and_of_sets_apart() -> None:
    x = torch.randn(1_500, 64, generator=torch.Generator().manual_seed(0))
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)


def test_one_repeated_fake_is_precise_and_recalls_nothing() -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    precision, recall = precision_recall(x, x[:1].expand(200, -1))
    assert precision == 1
    assert recall <= 1 / 200
