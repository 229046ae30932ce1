"""Training a pair of cells with all that DARTS adds: auxiliary head, drop-path, cutout."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

darts_net = pytest.importorskip("jaxnas.cells.darts_net")

from jaxnas.cells import darts_space  # noqa: E402
from jaxnas.cli import main  # noqa: E402
from jaxnas.core import run_scan  # noqa: E402
from jaxnas.data.catalog import load  # noqa: E402
from jaxnas.nn.network import count_params  # noqa: E402
from jaxnas.recipes import training  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compile")

CELLS = (
    "N[S3<0 SK<1 SK<0 SK<1 SK<0 SK<1 SK<0 SK<1] cat[2, 3, 4, 5] "
    "R[MP<0 SK<1 SK<0 SK<1 SK<0 SK<2 SK<2 SK<3] cat[2, 3, 4, 5]"
)
SETTINGS = {"batch": "64", "epochs": "1"}


def test_progress_is_told_and_the_export_answers_without_the_auxiliary_head(
    tmp_path, monkeypatch, capsys
):
    given = [part for name, text in SETTINGS.items() for part in ("--set", f"{name}={text}")]
    folder = tmp_path / "model"
    main(
        ["train", "darts", CELLS, "--preset", "tiny", "--data", "waves", *given, "--json",
         "--out", str(tmp_path / "run"), "--export", str(folder)]
    )  # fmt: skip
    facts, dataset = json.loads(capsys.readouterr().out), load("waves")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    from model import load as load_model, prepare  # ty: ignore[unresolved-import]

    module, variables = load_model()
    logits = module.apply(variables, prepare(dataset.test.x), train=False)
    right = 100 * (np.asarray(logits).argmax(1) == dataset.test.y).mean()
    np.testing.assert_allclose(right, facts["metrics"]["test"], rtol=1e-6)
    plain = darts_net.network(darts_space.from_text(CELLS), classes=4, channels=4, layers=3)
    size = count_params(jax.eval_shape(plain.init, jax.random.key(0), jnp.zeros((1, 40, 1))))
    counted = re.search(r"parameters \| ([\d,]+) ", (folder / "MODEL_CARD.md").read_text())
    assert counted is not None
    assert int(counted[1].replace(",", "")) == size < count_params(variables)

    config = training.configure("darts", CELLS, "tiny", SETTINGS, "waves")
    (train, steps, _), _ = training.build(config).legs
    state, _ = jax.jit(lambda key: run_scan(train, key, steps))(jax.random.key(0))
    assert float(state.network.variables["progress"]["done"]) == 0.75  # before its last step
