"""Attacks on one image after another, by numpy loops, given the loss and its gradient at a point."""

import numpy as np


def inside(x, origin, epsilon):
    """Clips number by number to the ball and to [0, 1]."""
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        out[i] = min(max(x[i], origin[i] - epsilon, 0.0), origin[i] + epsilon, 1.0)
    return out


def pgd(look, origin, x, rate, epsilon, steps):
    """Losses on the way, and whether any point was classified wrongly."""
    losses, fooled = [], False
    for _ in range(steps):
        loss, gradient, wrong = look(x)
        losses.append(loss)
        fooled = fooled or wrong
        x = inside(x + rate * np.sign(gradient), origin, epsilon)
    return losses, fooled or look(x)[2]


def momentum_pgd(look, origin, x, rate, epsilon, steps, decay=1.0):
    """As `pgd`, but the gradient over its l1 norm is summed up."""
    losses, velocity, fooled = [], np.zeros_like(x), False
    for _ in range(steps):
        loss, gradient, wrong = look(x)
        losses.append(loss)
        fooled = fooled or wrong
        velocity = decay * velocity + gradient / np.abs(gradient).sum()
        x = inside(x + rate * np.sign(velocity), origin, epsilon)
    return losses, fooled or look(x)[2]


def apgd(look, origin, x, epsilon, steps):
    """Algorithm 1 of Croce & Hein 2020: greatest loss, last step size, whether it fooled."""
    share, shares = 0.22, [0.0, 0.22]
    while True:
        share = shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06)
        if share > 1:
            break
        shares.append(share)
    ends = [int(np.ceil(round(s * steps, 6))) for s in shares]
    size = 2 * epsilon
    loss, _, fooled = look(x)
    points, losses = [x], [loss]
    best, best_loss, record, halved, last = x, loss, loss, False, 0
    for k in range(steps):
        here = points[-1]
        z = inside(here + size * np.sign(look(here)[1]), origin, epsilon)
        if k == 0:
            new = z
        else:
            new = inside(here + 0.75 * (z - here) + 0.25 * (here - points[-2]), origin, epsilon)
        loss, _, wrong = look(new)
        fooled = fooled or wrong
        if loss > best_loss:
            best, best_loss = new, loss
        rose = loss > losses[-1]
        losses.append(loss)
        points.append(new)
        last = last + rose
        if k + 1 in ends:
            window = k + 1 - max(e for e in ends if e < k + 1)
            was, halved = halved, False
            if last < 0.75 * window or (not was and record == best_loss):
                size, halved = size / 2, True
                points[-1], losses[-1] = best, best_loss
            record, last = best_loss, 0
    return best_loss, size, fooled
