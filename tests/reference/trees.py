"""Homologous crossover and tree distance by recursion over nested tuples `(name, operand, ...)`."""


def count(tree):
    return 1 + sum(count(operand) for operand in tree[1:])


def levels(tree):
    return 1 + max((levels(operand) for operand in tree[1:]), default=0)


def common(tree, other, path=()):
    """Paths (operand numbers from the root) of the places that both trees have."""
    found = [path]
    if len(tree) == len(other):
        for k in range(1, len(tree)):
            found += common(tree[k], other[k], (*path, k))
    return found


def distance(tree, other, beta):
    paths = common(tree, other)
    whole, deep = count(tree) + count(other), levels(tree) + levels(other)
    shared = 1 + max(len(path) for path in paths)
    nodes = (whole - 2 * len(paths)) / (whole - 2) if whole > 2 else 0.0
    depth = (deep - 2 * shared) / (deep - 2) if deep > 2 else 0.0
    return beta * nodes + (1 - beta) * depth


def subtree(tree, path):
    return subtree(tree[path[0]], path[1:]) if path else tree


def planted(tree, path, branch):
    if not path:
        return branch
    k = path[0]
    return (*tree[:k], planted(tree[k], path[1:], branch), *tree[k + 1 :])


def crossings(tree, other):
    """Every pair of children that homologous crossover may give."""
    paths = common(tree, other)
    return [
        (planted(tree, p, subtree(other, p)), planted(other, p, subtree(tree, p)))
        for p in (paths[1:] or paths)
    ]
