"""A pool from outside: verdicts in order, processes that come back, and the command."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxnas.cli import main
from jaxnas.programs.sandbox import isolation, processes
from jaxnas.programs.sandbox.pool import Limits, Pool
from jaxnas.programs.sandbox.program import Task

GOOD = """
import flax.linen as nn
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x)
"""
TASK = Task(shape=(40,), classes=10, batch=8, platforms=("cpu",))


@pytest.fixture(scope="module")
def pool():
    with Pool(TASK, workers=2, limits=Limits(seconds=60.0)) as pool:
        yield pool


def test_verdicts_come_in_order_and_equal_sources_are_traced_once(pool):
    sources = ["x = (", GOOD, "import os", GOOD]
    verdicts = pool.check(sources)
    assert [v.failure for v in verdicts] == ["parse", None, "forbidden", None]
    assert verdicts[1] is verdicts[3]
    assert (verdicts[1].params, verdicts[1].width) == (410, 10)
    assert verdicts[1].isolation == pool.isolation == isolation.reached(isolation.resolve("auto"))
    assert set(verdicts[1].programs) == {"init", "step", "evaluate"}
    assert 0 < verdicts[1].seconds < 60
    assert pool.check([]) == []


@pytest.mark.parametrize("source", ["", "\ud800", "x" * 40_000, "\0", GOOD.replace("10", "11")])
def test_no_source_raises(pool, source):
    (verdict,) = pool.check([source])
    assert not verdict.ok
    assert verdict.failure in {"parse", "shape"}
    assert verdict.message


def test_a_zygote_that_dies_comes_back(pool):
    for keeper in pool._keepers:
        os.kill(keeper._process.pid, signal.SIGKILL)
        keeper._process.wait()
    assert [v.failure for v in pool.check(["x = (", "import os"])] == ["parse", "forbidden"]


def test_a_zygote_that_dies_at_work_costs_that_source_alone(pool):
    idle = {k._process.pid: len(processes.descendants(k._process.pid)) for k in pool._keepers}
    verdicts = []
    loop = threading.Thread(target=lambda: verdicts.append(pool._check("while 1: pass", False)))
    loop.start()
    (busy,) = wait_for(lambda: [p for p, n in idle.items() if len(processes.descendants(p)) > n])
    family = processes.descendants(busy)
    os.kill(busy, signal.SIGKILL)
    loop.join(20)
    assert verdicts[0].failure == "crash"
    wait_for(lambda: not set(family) & set(processes.parents()))
    assert pool.check(["x = ("])[0].failure == "parse"


def wait_for(what, seconds=10):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_closing_ends_what_is_at_work():
    pool = Pool(TASK, "process", workers=1)
    pool.check(["x = ("])
    pid = pool._keepers[0]._process.pid
    loop = threading.Thread(target=pool._check, args=("while 1: pass", False))
    loop.start()
    (child,) = wait_for(lambda: processes.descendants(pid))
    begin = time.monotonic()
    pool.close()
    loop.join(5)
    pool.close()
    assert time.monotonic() - begin < 5
    assert not {pid, child} & set(processes.parents())
    assert not os.path.exists(pool._folder.name)


def test_nothing_outlives_a_parent_that_is_killed(tmp_path):
    code = f"""
import sys, threading, time
from jaxnas.programs.sandbox.pool import Pool
from jaxnas.programs.sandbox.program import Task
pool = Pool({TASK!r}, "process", workers=1)
pool.check(["x = ("])
threading.Thread(target=pool._check, args=("while 1: pass", False), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(isolation.PACKAGE.parent),
            "TMPDIR": str(tmp_path),
        },
    ) as parent:
        assert parent.stdout.readline() == b"ready\n"
        family = wait_for(lambda: (d := processes.descendants(parent.pid))[1:] and d)
        parent.kill()
    wait_for(lambda: not set(family) & set(processes.parents()))


def test_wrong_levels_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match="`level` must be auto, process, landlock, bubblewrap"):
        Pool(TASK, "docker")
    with pytest.raises(ValueError, match="`workers` must be at least 1"):
        Pool(TASK, workers=0)


def test_a_level_that_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(isolation, "survey", lambda: dict.fromkeys(isolation.LEVELS, "no such"))
    with pytest.raises(ValueError, match="`level` landlock does not work here: no such"):
        isolation.resolve("landlock")
    missing = {"process": "", "landlock": "no", "bubblewrap": "no"}
    monkeypatch.setattr(isolation, "survey", lambda: missing)
    assert isolation.resolve("auto") == "process"


def test_the_command_checks_a_file(said, tmp_path):
    file = tmp_path / "candidate.py"
    file.write_text(GOOD)
    facts = said("sandbox", str(file), "--task", "mnist1d", "--level", "process")
    assert facts["ok"]
    assert (facts["failure"], facts["params"]) == (None, 410)
    assert facts["isolation"].startswith("process")
    assert facts["seconds"] > 0
    assert facts["flops"] > 0


def test_the_command_ends_with_1_for_a_rejected_file_and_2_for_wrong_usage(
    capsys, refused, tmp_path
):
    file = tmp_path / "candidate.py"
    file.write_text("import os")
    with pytest.raises(SystemExit) as end:
        main(["sandbox", str(file), "--task", "mnist1d", "--level", "process", "--json"])
    assert end.value.code == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["failure"]) == (False, "forbidden")
    assert "`os` may not be imported" in facts["message"]
    assert "nothing.py" in refused("sandbox", str(tmp_path / "nothing.py"))
    assert "`level` must be" in refused("sandbox", str(file), "--level", "docker")
    assert "mnist1d" in refused("sandbox", str(file), "--task", "mnist2d")


def test_doctor_names_the_best_level_and_what_is_missing(said, monkeypatch):
    assert said("doctor")["sandbox"] == isolation.reached(isolation.resolve("auto"))
    missing = {"process": "", "landlock": "too old", "bubblewrap": "not installed"}
    monkeypatch.setattr(isolation, "survey", lambda: missing)
    facts = said("doctor")
    assert facts["sandbox"].startswith("process")
    assert facts["sandbox levels missing"] == "landlock: too old; bubblewrap: not installed"
