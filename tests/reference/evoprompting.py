"""The bookkeeping of EvoPrompting with lists: who survives, who becomes a parent, who is tuned on."""


def rounds_of(seeds, children, *, survivors, threshold):
    """Goes over all rounds.

    Args:
      seeds: `[(serial, size, error), ...]`, error None for what has no fitness.
      children: the same for each round.
      survivors: parents kept.
      threshold: on the error.

    Returns:
      For each round its parents (serials in order of choice), the children it is tuned on, and
      what is left in the pool after the last.
    """
    pool, parents, history = [], [serial for serial, _, error in seeds if error is not None], []
    for number, batch in enumerate(children):
        history.append(list(parents))
        for serial, size, error in batch:
            if error is not None and error < threshold:
                pool.append((size * error, serial))
        if number == len(children) - 1:
            break
        pool.sort()
        chosen, pool = pool[:survivors], pool[survivors:]
        if chosen:
            parents = [serial for _, serial in chosen]
    tuned = []
    for number, batch in enumerate(children[:-1]):
        later = set(history[number + 1])
        tuned.append([s for s, _, error in batch if error is not None and s not in later])
    return history, tuned, sorted(pool)
