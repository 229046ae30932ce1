"""A model that says what it was told to say, for tests and demonstrations.

Example:
    >>> from jaxnas.llm import ask_all, scripted
    >>> client = scripted(["first", "second", "third"])
    >>> question = [{"role": "user", "content": "Go on."}]
    >>> (completion,) = ask_all([client.complete(question, n=2)])
    >>> [reply.text for reply in completion.replies], completion.usage
    (['first', 'second'], Usage(prompt=2, completion=2))
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from jaxnas.llm.client import Client, Completion, ModelError, Reply, Request, Usage

Line = str | Reply | ModelError


def scripted(
    script: Iterable[Line] | Callable[[Request], Line | list[Line]], *, model: str = "scripted"
) -> Client:
    """A client without a model.

    Args:
      script: the replies one after another, or a function that answers a request, with one reply
        for all its samples or with a list of them. A `ModelError` is raised instead of said.
      model: the name it goes by.

    Returns:
      The client; it counts words as tokens and takes no time.
    """
    speak = script if callable(script) else _read(iter(script))

    async def send(request: Request) -> Completion:
        said = speak(request)
        lines = said if isinstance(said, list) else [said] * request.n
        for line in lines:
            if isinstance(line, ModelError):
                raise line
        replies = tuple(line if isinstance(line, Reply) else Reply(str(line)) for line in lines)
        read = sum(_words(message["content"]) for message in request.messages)
        usage = Usage(read, sum(_words(reply.text) for reply in replies))
        return Completion(replies, usage, model, 0.0)

    return Client(model, send)


def _read(lines: Iterator[Line]) -> Callable[[Request], list[Line]]:
    def speak(request: Request) -> list[Line]:
        first = next(lines, None)
        if first is None:
            raise ValueError("`script` has no reply left; give as many as are asked for.")
        if isinstance(first, ModelError):
            return [first]
        return [first, *islice(lines, request.n - 1)]

    return speak


def _words(text: str) -> int:
    return len(text.split())
