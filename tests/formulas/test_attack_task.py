import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import attacks

from jaxnas.core import Asked
from jaxnas.data.dataset import Split
from jaxnas.data.toy import shapes
from jaxnas.formulas import robust_net as robust, training
from jaxnas.formulas.apgd import apgd, checkpoints, momentum_pgd, success_rates
from jaxnas.formulas.attack import RATES, Progress, attack, projected, start, target
from jaxnas.formulas.judge import Judge
from jaxnas.formulas.robust_net import attacked, robust_net
from jaxnas.formulas.tape import parse
from jaxnas.formulas.training import at_once, prepare, train, trainer
from jaxnas.formulas.update_rules import space

pytestmark = pytest.mark.usefixtures("quick_compile")
EVERYTHING = space("everything")
SIDE, CLASSES, EPSILON = 3, 3, 0.1
RNG = np.random.default_rng(0)
FIRST = RNG.normal(size=(SIDE * SIDE, 8)) * 3
SECOND = RNG.normal(size=(8, CLASSES))  # unsure, so that float32 sees its gradients


def apply(variables, x):
    first, second = variables
    return jnp.tanh((x.reshape(len(x), -1) - 0.5) @ first) @ second


def seen(x, label):
    """Loss, gradient and whether the label is missed, of the same network on one image."""
    hidden = np.tanh((x.ravel() - 0.5) @ FIRST)
    logits = hidden @ SECOND
    share = np.exp(logits - logits.max())
    share /= share.sum()
    by_logits = share - np.eye(CLASSES)[label]
    gradient = FIRST @ ((SECOND @ by_logits) * (1 - hidden**2))
    return -np.log(share[label]), gradient.reshape(x.shape), logits.argmax() != label


@pytest.fixture(scope="module")
def on():
    x = RNG.integers(0, 256, (60, SIDE, SIDE, 1)).astype(np.uint8)
    x[:5, 0] = 255  # some images touch the bounds
    x[5:9, 1] = 0
    labels = RNG.integers(0, CLASSES, 60).astype(np.int32)
    labels[:40] = [
        np.argmax([-seen(image / 255, c)[0] for c in range(CLASSES)]) for image in x[:40]
    ]
    net = (apply, (jnp.asarray(FIRST, jnp.float32), jnp.asarray(SECOND, jnp.float32)))
    return target(net, Split(x, labels))


def tapes(*rules):
    return np.stack([parse(EVERYTHING, rule) for rule in rules])


def walks(on, key, batch):
    """Origin, first point and label of each image of the batch of a key."""
    delta, progress = start(on, key, batch, EPSILON)
    x, y = on.batch(progress.index)
    return [tuple(map(np.asarray, (a, a + d, c))) for a, d, c in zip(x, delta, y, strict=True)]


def test_only_images_that_are_classified_correctly_are_attacked(on):
    assert 40 <= len(on.y) < 60
    for x, y in zip(np.asarray(on.x), np.asarray(on.y), strict=True):
        assert not seen(x / 255, int(y))[2]


def test_a_network_that_is_always_wrong_and_images_that_are_no_bytes_are_refused():
    x = np.zeros((4, 2, 2, 1), np.uint8)
    never = (lambda variables, x: jnp.tile(jnp.array([1.0, 0.0]), (len(x), 1)), ())
    with pytest.raises(ValueError, match="`net` must classify some"):
        target(never, Split(x, np.ones(4, np.int32)))
    with pytest.raises(ValueError, match="`images` must be uint8"):
        target(never, Split(x.astype(np.float32), np.ones(4, np.int32)))


def test_projection_clips_to_the_ball_and_to_the_range_of_images():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (20, 4, 4, 3)).astype(np.float32) / np.float32(255)
    delta = rng.normal(scale=0.2, size=x.shape).astype(np.float32)
    out = np.asarray(projected(jnp.asarray(delta), jnp.asarray(x), EPSILON))
    assert np.abs(out).max() <= np.float32(EPSILON)
    assert (x + out).min() >= 0
    assert (x + out).max() <= 1
    np.testing.assert_allclose(x + out, attacks.inside(x + delta, x, EPSILON), atol=1e-6)


def test_a_batch_starts_within_the_ball_without_repeats_and_by_its_key(on):
    delta, progress = start(on, jax.random.key(1), 30, EPSILON)
    x, _ = on.batch(progress.index)
    assert len(set(np.asarray(progress.index).tolist())) == 30
    assert np.array_equal(projected(delta, x, EPSILON), delta)
    assert not np.array_equal(start(on, jax.random.key(2), 30, EPSILON)[0], delta)


def test_an_image_once_fooled_stays_fooled(on):
    task = attack(on, batch=6, epsilon=EPSILON)
    clean = jnp.zeros((6, SIDE, SIDE, 1))
    before = jnp.array([True, False, True, False, False, False])
    progress = Progress(jnp.arange(6), before)
    _, after = task.loss(clean, progress, (), jax.random.key(0))
    assert np.array_equal(after.fooled, before)  # all are right where they stand
    assert float(task.score(jnp.zeros(1), clean, progress)) == pytest.approx(2 / 6)


def test_the_rule_sign_of_g_is_pgd_and_its_score_counts_every_point(on):
    task, keys = attack(on, steps=6, batch=12, epsilon=EPSILON, bound=0.0), jax.random.key(3)[None]
    out = trainer(task, EVERYTHING, "group")(tapes("sg"), jnp.full((1, 1), 0.03), keys)
    losses, fooled = np.zeros(6), []
    for origin, x, y in walks(on, keys[0], 12):
        trail, wrong = attacks.pgd(lambda x, y=y: seen(x, y), origin, x, 0.03, EPSILON, 6)
        losses -= trail
        fooled.append(wrong)
    np.testing.assert_allclose(out.losses[0, 0], losses, rtol=1e-4)
    assert 0 < np.mean(fooled) < 1
    assert float(out.score[0, 0]) == pytest.approx(np.mean(fooled))


def test_momentum_pgd_is_the_loop_that_sums_gradients_over_their_norm(on):
    task, key = attack(on, steps=6, batch=12, epsilon=EPSILON, bound=0.0), jax.random.key(3)
    runs = jax.vmap(lambda key: prepare(task, key))(key[None])
    out = train(task, momentum_pgd(12), jnp.full(1, 0.05), runs)
    losses = np.zeros(6)
    for origin, x, y in walks(on, key, 12):
        losses -= attacks.momentum_pgd(lambda x, y=y: seen(x, y), origin, x, 0.05, EPSILON, 6)[0]
    np.testing.assert_allclose(out.losses[0], losses, rtol=1e-4)


def test_checkpoints_of_apgd_are_those_of_its_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]


def test_apgd_does_what_a_loop_over_single_images_does(on):
    # After more steps points stand nearly still, and rounding decides whether their loss rose.
    walk = jax.jit(lambda key: apgd(on, key, steps=10, batch=30, epsilon=EPSILON))(
        jax.random.key(4)
    )
    sizes = []
    for n, (origin, x, y) in enumerate(walks(on, jax.random.key(4), 30)):
        best, size, fooled = attacks.apgd(
            lambda x, y=y: seen(x, y), origin.astype(float), x.astype(float), EPSILON, 10
        )
        assert float(walk.best.loss[n]) == pytest.approx(best, rel=1e-3, abs=1e-5)
        assert bool(walk.fooled[n]) == fooled
        assert np.abs(walk.best.delta[n]).max() <= np.float32(EPSILON)
        sizes.append(size)
        assert float(walk.size[n]) == pytest.approx(size)
    assert len(set(sizes)) > 2


def test_attacks_beside_rules_reach_on_each_batch_what_loops_over_images_do(on):
    rates = success_rates(on, jax.random.key(5), steps=4, batch=20, seeds=2, epsilon=EPSILON)

    def mean(key, attack):
        return np.mean([attack(lambda x, y=y: seen(x, y), o, x) for o, x, y in walks(on, key, 20)])

    def momentum(rate):
        return lambda *at: attacks.momentum_pgd(*at, rate, EPSILON, 4)[1]

    key_rate, key_seeds = jax.random.split(jax.random.key(5))
    best = RATES[np.argmax([mean(key_rate, momentum(rate)) for rate in RATES])]
    for n, key in enumerate(jax.random.split(key_seeds, 2)):
        expected = mean(key, lambda *at: attacks.apgd(*at, EPSILON, 4)[2])
        assert float(rates["APGD"][n]) == pytest.approx(expected)
        assert float(rates["momentum PGD"][n]) == pytest.approx(mean(key, momentum(best)))
    assert 0 < rates["APGD"].mean() < 1


def test_side_by_side_one_after_another_and_in_parts_give_the_same_numbers(on, monkeypatch):
    task = attack(on, steps=4, batch=8, epsilon=EPSILON, bound=0.0)
    keys, rates = jax.random.split(jax.random.key(6), 2), jnp.full((3, 2), 0.02)
    rules = tapes("sg", "g", "sm1 * cd")

    def run(task, how):
        return trainer(task, EVERYTHING, how)(rules, rates, keys)

    expected = run(task._replace(side_by_side=True), "group")
    one_by_one = run(task, "group")
    size = 4 * 2 * 8 * SIDE * SIDE  # bytes of an array of two runs
    monkeypatch.setattr(training, "MEMORY", 24 * 2 * size)
    assert (at_once(task, 2, "group"), at_once(task, 2, "select")) == (6, 2)
    select = run(task, "select")
    monkeypatch.setattr(training, "MEMORY", 1)
    assert at_once(task, 2, "group") == 1
    for other in (one_by_one, select, run(task, "group")):
        np.testing.assert_allclose(other.losses, expected.losses, rtol=1e-5)
        np.testing.assert_allclose(other.score, expected.score, rtol=1e-5)


def test_a_judge_chooses_rates_on_its_proxy(on):
    task = attack(on, steps=3, batch=8, epsilon=EPSILON)._replace(seeds=2)
    proxy = task._replace(rates=(0.07,), bound=-1.0)
    grammar = space("adversarial")
    judge = Judge(task, grammar, tested=False, proxy=proxy, how="map")
    asked = Asked(jnp.asarray(np.stack([parse(grammar, "sg")])), jnp.full(1, -1))
    told = judge.evaluate(jax.random.key(0), asked).extra
    assert np.asarray(told.rate) == pytest.approx(0.07)
    assert 0.07 not in RATES
    assert told.scores.shape == (1, 2)


def test_adversarial_training_attacks_inside_the_ball_and_up_the_loss():
    x = jnp.asarray(np.random.default_rng(2).uniform(size=(5, 2, 2, 1)), jnp.float32)
    slope = jnp.asarray(np.random.default_rng(3).normal(size=x.shape), jnp.float32)
    out = attacked(jax.random.key(0), lambda x: (slope * x).sum(), x, 0.02)
    best = attacks.inside(np.asarray(x + 0.02 * jnp.sign(slope)), np.asarray(x), 0.02)
    np.testing.assert_allclose(out, best, atol=1e-6)  # seven steps cross the ball


def test_a_robust_network_is_trained_once_and_again_where_its_file_is_damaged(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data, key = shapes(n=64), jax.random.key(0)

    def made():
        net = robust_net(key, data, width=2, epochs=2, batch=32, rate=0.1)
        return jax.tree.leaves(net.variables)

    weights = made()
    (file,) = (tmp_path / "jaxnas" / "robust_nets").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(robust, "_trained", None)  # a second training would raise
        assert all(map(np.array_equal, made(), weights))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="trained again"):
        assert all(map(np.array_equal, made(), weights))
    assert len(list(file.parent.iterdir())) == 1


def test_a_robust_network_refuses_batches_larger_than_its_data():
    with pytest.raises(ValueError, match="`batch` must be at most the 16 images"):
        robust_net(jax.random.key(0), shapes(n=64), examples=16, batch=17)
