"""Run as a script on four devices: whole searches spread over them and change nothing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from reference.alike import compare
from reference.searches import SEARCHES

from jaxnas.core import over_seeds, run_scan

if __name__ == "__main__":
    devices = jax.devices()
    assert len(devices) == 4, devices
    keys = jax.random.split(jax.random.key(0), 8)
    spread = jax.device_put(keys, NamedSharding(Mesh(devices, ("S",)), PartitionSpec("S")))
    for name in sys.argv[1:]:
        search = over_seeds(SEARCHES[name]()[0])
        run = jax.jit(lambda keys, search=search: run_scan(search, keys, 5))
        whole, parts = run(keys), run(spread)
        compare(whole, parts, 1e-5)
        # What does not depend on the seed (a count of steps) may be copied; the rest is spread.
        largest = max(jax.tree.leaves(parts[0]), key=lambda leaf: leaf.size)
        assert [shard.data.shape[0] for shard in largest.addressable_shards] == [2] * 4
        print(name, "equal")  # noqa: T201
