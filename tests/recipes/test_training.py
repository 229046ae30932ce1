"""`jaxnas train` and `jaxnas export`, used as their users use them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import nas_bench_201
from jaxnas.cli import main
from jaxnas.core import legs_over_seeds
from jaxnas.data.catalog import load
from jaxnas.nn.network import count_params
from jaxnas.recipes import training
from jaxnas.recipes.training import PRESETS, Config
from jaxnas.runs.checkpoint import Checkpoints
from jaxnas.runs.store import open_run
from jaxnas.train.batches import on_device, take

pytestmark = pytest.mark.usefixtures("quick_compile")

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"
TINY = ("train", "nas_bench_201", CELL, "--preset", "tiny", "--data", "waves")
SMALL = ("--set", "batch=64", "--set", "epochs=3", "--set", "every=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds, trained and exported in one go."""
    folder = tmp_path_factory.mktemp("trained")
    main(
        [*TINY, *SMALL, "--seeds", "2", "--out", str(folder / "run"),
         "--export", str(folder / "model"), "--json"]
    )  # fmt: skip
    return folder / "run", folder / "model"


def said(capsys, *argv):
    main([*argv, "--json"])
    return json.loads(capsys.readouterr().out)


def settings(run):
    return Config(**run.config["config"])


def last_state(run):
    prepared = training.build(settings(run))
    legs = legs_over_seeds(prepared.legs, prepared.seeds)
    keys = jax.random.split(jax.random.key(0), run.config["seeds"])
    with Checkpoints(run.folder / "state") as checkpoints:
        found = checkpoints.restore(lambda _: jax.eval_shape(legs[0].search.init, keys))
    assert found is not None
    return found


def test_a_training_is_a_run_with_an_evaluation_after_every_epoch(trained):
    run = open_run(trained[0])
    per_epoch = 256 // 64
    rows = [row for row in run.steps() if row.seed == 0]
    assert [row.step for row in rows] == [2, 4, 5, 7, 9, 10, 12, 14, 15]  # one for each chunk
    judged = [row.step for row in rows if "test_accuracy" in row.metrics]
    assert judged == [per_epoch + 1, 2 * (per_epoch + 1), 3 * (per_epoch + 1)]
    told = [row.metrics for row in rows if row.step not in judged]
    names = {"train_loss", "train_accuracy", "learning_rate", "diverged"}
    assert all(set(metrics) == names for metrics in told)
    rates = [metrics["learning_rate"] for metrics in told]
    wanted = (0.05 * (1 + np.cos(np.pi * np.arange(12) / 12))).reshape(-1, 2).mean(1)
    np.testing.assert_allclose(rates, wanted, rtol=1e-5)
    results = run.results()
    assert [row.seed for row in results] == [0, 1]
    final = {row.seed: row.metrics for row in run.steps()[-2:]}
    for row in results:
        assert row.genotype == CELL
        assert row.metrics["fitness"] == final[row.seed]["valid_accuracy"]
        assert row.metrics["test"] == final[row.seed]["test_accuracy"]
    assert run.meta()["status"] == "finished"
    assert run.meta()["fitness_label"].startswith("waves validation accuracy, % (3 epochs, C=4 L=1")
    assert "<!DOCTYPE html>" in (trained[0] / "report.html").read_text()


KILLED = """
import os, signal, sys
from jaxnas.runs.checkpoint import Checkpoints
from jaxnas.cli import main
save, count = Checkpoints.save, [0]
def deadly(self, at, state):
    count[0] += 1
    if count[0] == 5:
        self.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, at, state)
Checkpoints.save = deadly
main(sys.argv[1:])
"""


def test_a_killed_training_resumes_to_the_uninterrupted_one_bit_for_bit(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    argv = [*TINY, *SMALL, "--seeds", "2", "--out", str(folder), "--json"]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *argv], env=env, capture_output=True, text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    with Checkpoints(folder / "state") as checkpoints:
        assert checkpoints.latest() == 7  # 2, 4, 5, 7, (9): in the middle of an epoch
    facts = said(capsys, "resume", str(folder))
    whole, resumed = open_run(trained[0]), open_run(folder)
    assert facts["recipe"] == "train"
    assert resumed.steps() == whole.steps()
    assert resumed.results() == whole.results()
    (step, state), (other_step, other) = last_state(resumed), last_state(whole)
    assert step == other_step == 15
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def exported(trained, monkeypatch):
    """The module `model` of an export, imported from its folder alone."""
    monkeypatch.syspath_prepend(str(trained[1]))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    import model  # ty: ignore[unresolved-import]

    yield model
    del sys.modules["model"]


def test_the_exported_model_answers_as_the_run_does_bit_for_bit(trained, exported):
    run = open_run(trained[0])
    best = max(run.results(), key=lambda row: row.metrics["fitness"])
    dataset = load("waves")
    state = jax.tree.map(lambda leaf: leaf[best.seed], last_state(run)[1])
    network = training.network(settings(run), dataset)
    x, y = take(on_device(dataset, dataset.test), jnp.arange(len(dataset.test.y)))
    wanted, _ = jax.jit(lambda v, x: network.apply(v, x, False))(state.network.variables, x)
    module, variables = exported.load()
    assert set(variables) == {"params", "batch_stats"}
    np.testing.assert_array_equal(exported.prepare(dataset.test.x), x)
    got = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(100 * (got.argmax(1) == y).mean(), best.metrics["test"], rtol=1e-6)
    assert len(exported.CLASSES) == got.shape[1]


def test_the_card_says_what_was_trained_on_what_and_how_well(trained, exported):
    card, run = (trained[1] / "MODEL_CARD.md").read_text(), open_run(trained[0])
    best = max(run.results(), key=lambda row: row.metrics["fitness"])
    facts = (
        CELL,
        f"| parameters | {count_params(exported.load()[1]):,} ",
        f"| validation ({len(load('waves').valid.y)}) | {best.metrics['fitness']:.2f} |",
        f"| test ({len(load('waves').test.y)}) | {best.metrics['test']:.2f} |",
        f"seed {best.seed}, the best of its run on validation",
        "Over 2 seeds test is",
        "256 examples: the training set without its held-out validation split",
        "- epochs: 3",
        "- learning_rate: 0.1",
        f"jax {jax.__version__}",
        "from model import load",
        "arXiv:2001.00326",
    )
    assert not [fact for fact in facts if fact not in card], card
    assert "$" not in card


def test_another_seed_can_be_exported_and_one_that_is_not_there_is_refused(
    trained, tmp_path, capsys
):
    for seed in (0, 1):
        out = tmp_path / str(seed)
        paths = said(capsys, "export", str(trained[0]), "--out", str(out), "--seed", str(seed))
        assert set(paths) == {"weights.msgpack", "model.py", "MODEL_CARD.md"}
        assert f"of seed {seed}," in (out / "MODEL_CARD.md").read_text()
    first, second = ((tmp_path / n / "weights.msgpack").read_bytes() for n in "01")
    assert first != second
    with pytest.raises(SystemExit) as end:
        main(["export", str(trained[0]), "--out", str(tmp_path / "2"), "--seed", "2"])
    assert end.value.code == 2
    assert "`seed` must be in 0 ... 1, but got 2" in capsys.readouterr().err
    assert not (tmp_path / "2").exists()


def test_mnist1d_is_learned_on_everything_and_judged_by_test_alone(tmp_path, capsys):
    argv = ("train", "nas_bench_201", CELL, "--preset", "tiny", "--set", "whole=yes")
    facts = said(capsys, *argv, "--out", str(tmp_path / "run"), "--export", str(tmp_path / "model"))
    assert facts["fitness"] == facts["metrics"]["test"] > 30  # of ten classes, after 124 steps
    assert "trained on the whole official training set" in facts["fitness_label"]
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "4,000 examples: the whole official training set, nothing held out" in card
    assert "not chosen by any result" in card
    assert "| validation" not in card


BAD = "|nor_conv_3x3~0|+|nine~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nas_bench_202", CELL), ("'nas_bench_202'", "nas_bench_201", "darts")),
        (("nas_bench_201", BAD), ("'nine'", "node 2")),
        (("nas_bench_201", CELL, "--data", "nowhere"), ("'nowhere'", "mnist1d")),
        (("nas_bench_201", CELL, "--preset", "imagenet"), ("'imagenet'", "tiny", "paper")),
        (("nas_bench_201", CELL, "--set", "epoch=1"), ("'epoch'", "'epochs'")),
        (("nas_bench_201", CELL, "--set", "epochs=0"), ("`epochs`", "0")),
        (("nas_bench_201", CELL, "--set", "epochs=few"), ("`epochs`", "int", "'few'")),
        (("nas_bench_201", CELL, "--set", "batch=9999"), ("`batch`", "9999")),
        (("nas_bench_201", CELL, "--set", "schedule=step"), ("`schedule`", "'step'")),
        (("nas_bench_201", CELL, "--set", "drop_path=0.2"), ("`drop_path`", "nas_bench_201")),
        (("nas_bench_201", CELL, "--set", "auxiliary=0.4"), ("`auxiliary`", "0.4")),
        (("nas_bench_201", CELL, "--seeds", "0"), ("`seeds`", "0")),
    ],
    ids=lambda value: "-".join(value)[-40:],
)
def test_a_training_that_cannot_be_is_refused_in_one_line(
    argv, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["train", *argv])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith("jaxnas: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not any(tmp_path.rglob("*"))


def test_only_a_finished_training_is_exported(trained, tmp_path, capsys):
    import shutil

    shutil.copytree(trained[0], tmp_path / "run")
    run = open_run(tmp_path / "run")
    with run:
        run.put_meta(status="interrupted")
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "run")])
    assert "not finished" in capsys.readouterr().err
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": "darts"}))
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "run")])
    assert "a run of darts" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "nowhere")])
    assert "nowhere" in capsys.readouterr().err


def test_paper_presets_are_the_papers():
    """Liu et al., arXiv:1806.09055, sections 3.2 and A.2; Dong & Yang, arXiv:2001.00326, table 1."""
    darts = {
        "channels": 36, "layers": 20, "epochs": 600, "batch": 96, "learning_rate": 0.025,
        "final_learning_rate": 0.0, "schedule": "cosine", "momentum": 0.9, "nesterov": False,
        "weight_decay": 3e-4, "clip": 5.0, "cutout": 16, "auxiliary": 0.4, "drop_path": 0.2,
        "data": "cifar10", "whole": True, "augment": True, "smoothing": 0.0,
    }  # fmt: skip
    imagenet = {
        "channels": 48, "layers": 14, "epochs": 250, "batch": 128, "learning_rate": 0.1,
        "schedule": "exponential", "decay": 0.97, "weight_decay": 3e-5, "smoothing": 0.1,
        "auxiliary": 0.4, "jitter": True, "cutout": 0, "drop_path": 0.0, "clip": 5.0,
        "nesterov": False,
    }  # fmt: skip
    cell = {
        "channels": 16, "layers": 5, "epochs": 200, "batch": 256, "learning_rate": 0.1,
        "final_learning_rate": 0.0, "schedule": "cosine", "momentum": 0.9, "nesterov": True,
        "weight_decay": 5e-4, "clip": 0.0, "cutout": 0, "auxiliary": 0.0, "drop_path": 0.0,
        "data": "cifar10", "whole": True, "augment": True, "smoothing": 0.0,
    }  # fmt: skip
    for preset, wanted in (
        (PRESETS["darts"]["paper"], darts),
        (PRESETS["darts"]["imagenet"], imagenet),
        (PRESETS["nas_bench_201"]["paper"], cell),
    ):
        assert wanted.items() <= dataclasses.asdict(preset).items()


def test_a_genotype_is_kept_in_its_own_words():
    config = training.configure("nas_bench_201", f"  {CELL} ", "tiny", {"channels": "8"}, "waves")
    assert (config.genotype, config.channels, config.data) == (CELL, 8, "waves")
    assert nas_bench_201.to_text(nas_bench_201.from_text(config.genotype)) == CELL
