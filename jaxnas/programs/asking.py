"""What a language model answers to a batch of proposals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxnas.llm import BudgetError, Client, Completion, ModelError, Reply, ask_all
from jaxnas.programs.proposal import Proposal

UNFIT = (400, 413, 422)  # what HTTP says of a request that is itself at fault


def replies(
    client: Client,
    proposals: Sequence[Proposal],
    *,
    max_tokens: int,
    form: Callable[[Proposal], Mapping[str, Any]] = lambda one: {},
) -> list[Reply]:
    """One reply to each proposal, all under way at once.

    A request that the server will not have while it answers others (a prompt beyond its context)
    costs one candidate: its reply is empty, the reason stands among the calls of the ledger.

    Args:
      client: what is asked.
      proposals: the batch.
      max_tokens: the most tokens of a reply.
      form: what the reply to a proposal is held to, as `grammar` or `schema`; free by default.

    Raises:
      ModelError: if the model does not answer even after all attempts, or refuses everything.
      BudgetError: if the budget is spent.
    """
    calls = [
        client.complete(
            one.messages,
            temperature=one.temperature,
            max_tokens=max_tokens,
            seed=one.seed,
            **form(one),
        )
        for one in proposals
    ]
    told = ask_all(calls)
    for one in told:
        if isinstance(one, BudgetError):  # the end, whatever else went wrong
            raise one
    answers = any(isinstance(one, Completion) for one in told)
    return [_reply(one, answers) for one in told]


def _reply(one: Completion | Exception, answers: bool) -> Reply:
    if isinstance(one, Completion):
        return one.replies[0]
    if answers and isinstance(one, ModelError) and one.status in UNFIT:
        return Reply("", "refused")
    raise one
