"""Where compiled programs are kept between processes, and how many of them."""

import contextlib
import os
from pathlib import Path


def cache_compilation() -> str:
    """Keeps compiled programs between processes, unless the user has chosen a place."""
    import jax

    from jaxnas.data.dataset import cache_folder

    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = chosen or str(cache_folder() / "jax")
    if not chosen:
        jax.config.update("jax_compilation_cache_dir", folder)
        _pruned(Path(folder), 2 * 2**30)
    return folder


def _pruned(folder: Path, most: int) -> None:
    """Removes the oldest programs beyond so many bytes.

    Once a process: JAX's own limit looks at every file before it writes one, under a lock.
    """
    with contextlib.suppress(OSError):  # another process prunes
        files = [(file.stat(), file) for file in folder.glob("*-cache")]
        excess = sum(facts.st_size for facts, _ in files) - most
        if excess <= 0:
            return
        for facts, file in sorted(files, key=lambda pair: pair[0].st_mtime):
            file.unlink(missing_ok=True)
            excess -= facts.st_size
            if excess <= 0:
                return
