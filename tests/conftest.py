"""Types are checked while the tests run, and nothing is compiled twice.

The hook must be in place before anything of jaxnas is imported, hence the imports below it. It
leaves out `runs`, `report` and `data`: they hold files and numpy, and beartype reads neither their
`typing.Self` (it decorates functions, not classes) nor their `IO[bytes]` (of a zip member).
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import jaxtyping

ROOT = Path(__file__).resolve().parents[1]
UNCHECKED = {"__pycache__", "runs", "report", "data"}
ROOMS = sorted(
    p.name for p in (ROOT / "jaxnas").iterdir() if p.is_dir() and p.name not in UNCHECKED
)
jaxtyping.install_import_hook([f"jaxnas.{room}" for room in ROOMS], "beartype.beartype")

import pytest  # noqa: E402

from jaxnas.data import dataset, tables  # noqa: E402

# A suite started in the background ignores Ctrl-C, and so would the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# By its name in the environment, so that processes that tests start share what was compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
if jax.__version_info__ < (0, 12):  # a flag that XLA does not know ends the process
    # XLA's older emitters and one module for LLVM: a third of the time to compile.
    emitters = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", emitters)


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """Compiles with few optimisations, in half the time: for modules that compile much, run little.

    So do the processes that their tests start, which then find the same numbers.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def cell_table() -> tables.Nasbench201Table:
    """The real table of NAS-Bench-201, or a skip that says what is missing."""
    if dataset.find(tables.FILE) is None:
        pytest.skip(f"{tables.FILE} is in none of {', '.join(map(str, dataset.data_folders()))}")
    return tables.nas_bench_201()


@pytest.fixture
def killed(monkeypatch):
    """Runs a command that ends as by a power cut, before it keeps the checkpoint of a step."""
    from jaxnas.cli import main
    from jaxnas.runs.checkpoint import Checkpoints

    class Killed(BaseException):
        """Like a power cut, nothing answers to it."""

    def run(*argv, step):
        save = Checkpoints.save

        def deadly(self, at, state):
            if at == step:
                self.wait()
                raise Killed
            save(self, at, state)

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", deadly)
            with pytest.raises(Killed):
                main(list(argv))

    return run


@pytest.fixture
def said(capsys):
    """Runs a command and gives its one JSON object."""

    from jaxnas.cli import main

    def run(*argv):
        main([*argv, "--json"])
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        return json.loads(out)

    return run


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused, and gives what it says."""

    from jaxnas.cli import main

    def run(*argv):
        with pytest.raises(SystemExit) as end:
            main(list(argv))
        assert end.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    return run
