import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_search import SEEDS, bits, init, keys_of

from jaxnas.runs import BrokenRunError
from jaxnas.runs.checkpoint import Checkpoints

# After a damaged read, Orbax leaves callbacks behind that complain about their closed loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
LIKE = jax.eval_shape(jax.vmap(init), keys_of(SEEDS))


def state(i: int):
    made = jax.vmap(init)(jax.random.split(jax.random.key(i), SEEDS))
    odd = jnp.asarray(np.array([[0x7FC12345, 0xFF800000, 0x80000000]], np.uint32).view(np.float32))
    return made._replace(position={"x": made.position["x"].at[:, 0].set(odd)})


def saved(folder, *steps):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step))


def truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_kind_of_leaf_survives_bit_for_bit(tmp_path):
    saved(tmp_path, 5)
    with Checkpoints(tmp_path) as checkpoints:
        step, restored = checkpoints.restore(lambda _: LIKE)
    assert step == 5
    assert jax.tree.structure(restored) == jax.tree.structure(LIKE)
    assert bits(restored) == bits(state(5)) != bits(state(6))
    assert restored.key.dtype == state(5).key.dtype
    assert jnp.isnan(restored.position["x"]).any()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_either_kind_draw_the_same_after_restoring(tmp_path, impl):
    key = jax.random.key(3, impl=impl)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"key": key})
        checkpoints.wait()
        _, restored = checkpoints.restore(lambda _: {"key": key})
    np.testing.assert_array_equal(
        jax.random.normal(restored["key"], (4,)), jax.random.normal(key, (4,))
    )


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(lambda _: LIKE) is None
        assert checkpoints.latest() == 0


def test_the_last_two_checkpoints_are_kept_and_leftovers_removed(tmp_path):
    saved(tmp_path, 1, 2, 3)
    left = tmp_path / "4.orbax-checkpoint-tmp-99"
    left.mkdir()
    (left / "part").write_text("x")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    saved(tmp_path, 1, 2)
    truncate(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        step, restored = checkpoints.restore(lambda _: LIKE)
        assert step == 1
        assert bits(restored) == bits(state(1))
        checkpoints.save(2, state(22))
        checkpoints.wait()
        assert bits(checkpoints.restore(lambda _: LIKE)[1]) == bits(state(22))


def test_a_single_truncated_data_file_is_noticed(tmp_path):
    saved(tmp_path, 1, 2)
    data = max((tmp_path / "2" / "state" / "d").iterdir(), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-7])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(lambda _: LIKE)[0] == 1


def test_if_no_checkpoint_can_be_read_nothing_is_removed(tmp_path):
    saved(tmp_path, 1, 2)
    truncate(tmp_path)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(BrokenRunError, match=r"No checkpoint in .* can be read"),
    ):
        checkpoints.restore(lambda _: LIKE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "other",
    [
        LIKE._replace(best=jax.ShapeDtypeStruct((SEEDS + 1,), jnp.float32)),
        LIKE._replace(best=jax.ShapeDtypeStruct((SEEDS,), jnp.bfloat16)),
        LIKE._replace(position={"y": LIKE.position["x"]}),
        LIKE._replace(best=None),
    ],
    ids=["shape", "dtype", "name", "leaf less"],
)
def test_another_configuration_is_refused(tmp_path, other):
    saved(tmp_path, 1, 2)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="the configuration differs"),
    ):
        checkpoints.restore(lambda _: other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_full_disk_is_named_and_leaves_the_older_checkpoint(tmp_path, full_disk):
    large = {"x": jax.random.normal(jax.random.key(0), (50_000,))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, large)
        checkpoints.wait()
        with full_disk(20_000):
            checkpoints.save(2, jax.tree.map(lambda x: -x, large))
            with pytest.raises(OSError, match="the checkpoint before it is intact"):
                checkpoints.wait()
        step, restored = checkpoints.restore(lambda _: large)
        assert step == checkpoints.latest() == 1
        assert bits(restored) == bits(large)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, jax.tree.map(lambda x: -x, large))
        checkpoints.wait()
        assert checkpoints.restore(lambda _: large)[0] == 2
