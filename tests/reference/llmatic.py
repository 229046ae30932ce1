"""What LLMatic learns from a generation, in plain Python: dicts, and one candidate after another.

It is told the plan (which elite and which instruction made each candidate, at which temperature) and
what was measured.
"""

import math

from reference.elites import Elites


class Book:
    """Both archives; `curiosity` and the prompts are by cell."""

    def __init__(self, centroids, instructions, *, published=False, population=None, best=None):
        """`population`: prompts without an archive; `best`: networks without one, so many."""
        self.networks, self.prompts = Elites(centroids), Elites(centroids)
        self.instructions, self.published = instructions, published
        self.population, self.best, self.members = population, best, []
        self.curiosity = dict.fromkeys(range(len(centroids)), 0.0)
        self.scores, self.rival, self.asked = [0] * instructions, -math.inf, 0
        self.rewards = set()

    def learn(self, plan, candidates):
        """`plan`: (instruction or -1, cell or -1, temperature); `candidates`: (fitness, repeated,
        descriptor in the unit square)."""
        entered, compared, so_far = [], [], self.rival
        for fitness, _, where in candidates:
            self.asked += 1
            compared.append(so_far)
            if self.published and math.isfinite(fitness):
                so_far = max(so_far, fitness)
            if self.best is None:
                entered.append(self.networks.add(self.asked, fitness, where))
            elif math.isfinite(fitness):
                self.members.append((self.asked, fitness))
        if self.best is not None:
            self.members = sorted(self.members, key=lambda m: -m[1])[: self.best]
            kept, first = {name for name, _ in self.members}, self.asked - len(candidates) + 1
            entered = [first + n in kept for n in range(len(candidates))]
        self._reward(plan, candidates, entered)
        if self.population is None:
            self._inherit(plan, candidates, entered, compared)
        finite = [fitness for fitness, *_ in candidates if math.isfinite(fitness)]
        if finite:
            self.rival = max(self.rival, *finite) if self.published else max(finite)

    def _reward(self, plan, candidates, entered):
        changes = {}
        for (_, cell, _), (fitness, repeated, _), came in zip(
            plan, candidates, entered, strict=True
        ):
            if cell < 0:
                continue
            built = math.isfinite(fitness) or repeated
            reward = 1.0 if came else -0.5 if built else -1.0
            self.curiosity[cell] += reward
            self.rewards.add(reward)
            changes[cell] = changes.get(cell, 0.0) + (0.1 if came else -0.1)
        for cell, change in changes.items():
            if self.population is not None:
                index, temperature = self.population[cell]
                self.population[cell] = (index, min(max(temperature + change, 0.1), 1.0))

    def _inherit(self, plan, candidates, entered, compared):
        heirs = []
        for (index, _, temperature), (fitness, repeated, _), came, rival in zip(
            plan, candidates, entered, compared, strict=True
        ):
            if index < 0 or not (math.isfinite(fitness) or repeated):
                continue
            self.scores[index] += fitness > rival
            rises = math.isfinite(fitness) and fitness >= rival
            heirs.append((index, temperature + (0.05 if rises else -0.05), came))
        for index, temperature, came in heirs:
            warm = min(max(temperature, 0.1), 1.0)
            worth = float(came) if self.published else float(self.scores[index])
            where = (index / self.instructions, warm)
            before = dict(self.prompts.cells)
            if self.prompts.add((index, warm), worth, where):
                (cell,) = [c for c, elite in self.prompts.cells.items() if before.get(c) != elite]
                self.curiosity[cell] = 0.0
