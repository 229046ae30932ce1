"""The process that trains: what goes wrong in a program costs that process and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnas.data.toy import waves
from jaxnas.programs.lessons import classification
from jaxnas.programs.sandbox.program import Task, trace
from jaxnas.programs.sandbox.trainer import Job
from jaxnas.programs.sandbox.worker import Worker
from jaxnas.train.exported import fit_exported
from jaxnas.train.portable import opened

pytestmark = pytest.mark.usefixtures("quick_compile")

WAVES = waves(length=12, n=48)
FIT = classification(WAVES, batch=16).fit
TASK = Task((12,), 4, batch=16, eval_batch=48, platforms=("cpu",))
KEY = np.array([0, 3], np.uint32)
LINES = {
    "good": "pass",
    "endless": "x = x + jax.lax.while_loop(lambda i: i >= 0, lambda i: (i + 1) % 7, (x[0, 0] > 9) * 1)",
    "large": "x = x + jax.lax.stop_gradient(jnp.sort(x[0, 0] + jnp.arange(2**32) * 1.0)[7])",
    "nan": "x = jnp.log(-1 - x * x)",
}
SOURCE = """
import flax.linen as nn
import jax
import jax.numpy as jnp

class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        {}
        return nn.Dense(4)(x)
"""
JOBS = {
    name: Job(trace(SOURCE.format(line), TASK).programs, KEY, steps=20, evaluate_every=10)
    for name, line in LINES.items()
}
FOREVER = 300.0  # seconds; no test waits for them


@pytest.fixture
def worker():
    with Worker(FIT, memory=4 << 30) as worker:
        yield worker


def alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def pid_of(worker):
    return worker._process._popen.pid


def wait_until(what):
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen within a minute")


def test_a_job_gives_what_training_here_gives(worker):
    start = np.r_[np.ones(48), np.full(4, np.nan)].astype(np.float32)
    job = JOBS["good"]._replace(seeds=(1, 2), learning_rates=(0.1, 0.01), start=start)
    [outcome] = worker.train([job], FOREVER)
    here = fit_exported(
        opened(job.programs),
        WAVES,
        jax.random.wrap_key_data(KEY),
        (1, 2),
        (0.1, 0.01),
        steps=20,
        evaluate_every=10,
        start=start,
    )
    assert outcome.failure is None
    assert outcome.trained.weights.shape == (2, 52)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), outcome.trained, here)


def test_an_endless_program_costs_its_process_and_no_other_job(worker):
    [first] = worker.train([JOBS["good"]], FOREVER)
    killed = pid_of(worker)
    hung, again = worker.train([JOBS["endless"]], 2.0), worker.train([JOBS["good"]], FOREVER)
    assert [o.failure for o in (*hung, *again)] == ["time", None]
    assert "within 2 s" in hung[0].message
    assert not alive(killed)
    assert pid_of(worker) != killed
    np.testing.assert_array_equal(first.trained.curve, again[0].trained.curve)


def test_failures_have_names_and_the_process_stays(worker):
    foreign = JOBS["good"]._replace(programs={**JOBS["good"].programs, "step": b"nonsense"})
    jobs = [JOBS["nan"], JOBS["large"], foreign, JOBS["good"]]
    outcomes = worker.train(jobs[:1], FOREVER)
    pid = pid_of(worker)
    outcomes += worker.train(jobs[1:], FOREVER)
    assert [o.failure for o in outcomes] == ["non-finite", "memory", "forbidden", None]
    assert "not finite at step 0" in outcomes[0].message
    assert outcomes[0].trained.valid.tolist() == [-np.inf]
    assert pid_of(worker) == pid


def test_a_process_that_dies_is_a_crash_and_is_replaced(worker):
    worker.train([JOBS["good"]], FOREVER)
    os.kill(pid_of(worker), signal.SIGKILL)
    crashed, again = (worker.train([JOBS["good"]], FOREVER)[0] for _ in range(2))
    assert crashed.failure == "crash"
    assert "exit status -9" in crashed.message
    assert again.failure is None


def test_of_several_at_once_the_endless_one_alone_pays():
    with Worker(FIT, together=2) as worker:
        worker.train([JOBS["good"]], FOREVER)
        outcomes = worker.train([JOBS["endless"], JOBS["good"], JOBS["good"]], 6.0)
    assert [o.failure for o in outcomes] == ["time", None, None]


PARENT = """
import sys, pickle
from jaxnas.programs.sandbox.worker import Worker
fit, good, endless = pickle.load(open(sys.argv[1], "rb"))
with Worker(fit) as worker:
    worker.train([good], 300.0)
    print(worker._process._popen.pid, flush=True)
    worker.train([endless], 300.0)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_parent_ends_in_the_middle(how, tmp_path):
    import pickle

    (tmp_path / "jobs").write_bytes(pickle.dumps((FIT, JOBS["good"], JOBS["endless"])))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "jobs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    pid = int(parent.stdout.readline())
    assert alive(pid)
    time.sleep(1)
    os.killpg(parent.pid, how)
    parent.wait(60)
    wait_until(lambda: not alive(pid))


@pytest.fixture
def small_cache(tmp_path):
    new = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_compilation_cache_max_size": 2**30,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    old = {name: jax.config.values[name] for name in new}
    for name, value in new.items():
        jax.config.update(name, value)
    yield tmp_path
    for name, value in old.items():
        jax.config.update(name, value)


def test_a_cache_of_programs_with_a_limit_keeps_it(small_cache, worker):
    worker.train([JOBS["good"]], FOREVER)
    kept, used = (len(list(small_cache.glob(f"*-{end}"))) for end in ("cache", "atime"))
    assert kept == used > 0  # without the times of use, whoever keeps the limit fails


def test_the_process_gets_no_secrets_and_says_why_it_does_not_start(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "s3cret")
    with Worker(FIT) as worker:
        worker.train([JOBS["good"]], FOREVER)
        assert b"s3cret" not in Path(f"/proc/{pid_of(worker)}/environ").read_bytes()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="does not start: exit status 1"):
        Worker(FIT).train([JOBS["good"]], FOREVER)
