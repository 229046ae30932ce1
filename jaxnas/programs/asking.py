"""What a language model answers to a batch of proposals."""

from collections.abc import Sequence

from jaxnas.llm import Client, Completion, ModelError, Reply, ask_all
from jaxnas.programs.proposal import Proposal

UNFIT = (400, 413, 422)  # what HTTP says of a request that is itself at fault


def replies(
    client: Client, proposals: Sequence[Proposal], *, max_tokens: int, grammar: str | None = None
) -> list[Reply]:
    """One reply to each proposal, all under way at once.

    A request that the server will not have while it answers others (a prompt beyond its context)
    costs one candidate: its reply is empty, the reason stands among the calls of the ledger.

    Args:
      client: what is asked.
      proposals: the batch.
      max_tokens: the most tokens of a reply.
      grammar: whose sentences replies are; None leaves the model free.

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
            grammar=grammar,
        )
        for one in proposals
    ]
    told = ask_all(calls)
    answers = any(isinstance(one, Completion) for one in told)
    return [_reply(one, answers) for one in told]


def _reply(one: Completion | Exception, answers: bool) -> Reply:
    if isinstance(one, Completion):
        return one.replies[0]
    if answers and isinstance(one, ModelError) and one.status in UNFIT:
        return Reply("", "refused")
    raise one
