"""Replies from a vLLM server, for models that are too large to sample from here.

Start one with `vllm serve MODEL`. It has the weights it was started with: this is for
completing and evaluating, not for the rollouts of a policy that is being trained.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.models.sampler import Completion
from alignlab.models.text import (
    Prompt,
    as_messages,
    completion_text,
    encode_prompt,
    end_token_ids,
)


def complete_by_server(
    server: str,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | None = None,
    batch_size: int = 256,
    chat: bool = True,
    chat_template_kwargs: Mapping | None = None,
    *,
    model: str | None = None,
    timeout: float = 600.0,
) -> list[Completion]:
    """The reply of the server's model to each prompt, in the order given, as
    :func:`alignlab.models.sampler.complete` would have it from the same weights.
    Prompts are sent as token ids, so that the chat template is the tokenizer's.

    Args:
        server: its address, such as "http://localhost:8000".
        tokenizer: of the server's model.
        prompts, max_new_tokens, temperature, chat, chat_template_kwargs: see there.
        seed: of the server's draws, which are others than ours.
        batch_size: prompts in one request; the server batches as it likes.
        model: which of the server's, if it has several, such as adapters by name.
        timeout: seconds to wait for a request.

    Raises:
        AlignlabError: if no server answers, it has no such model, a prompt does not
            fit, or it is too old to return token ids.
    """
    served = _served_models(server, timeout)
    name = _one_of(served, model, server)
    ids = [
        encode_prompt(
            tokenizer, as_messages(prompt, "user"), **(chat_template_kwargs or {})
        )
        if chat
        else encode_prompt(tokenizer, prompt)
        for prompt in prompts
    ]
    _require_room(ids, max_new_tokens, served[name])
    ends = end_token_ids(tokenizer)
    settings = {
        "model": name,
        "max_tokens": max_new_tokens,
        "temperature": temperature,
        "stop_token_ids": ends,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }
    if seed is not None:
        settings["seed"] = seed
    replies = []
    for start in range(0, len(ids), batch_size):
        batch = ids[start : start + batch_size]
        answer = _ask(server, "/v1/completions", timeout, settings | {"prompt": batch})
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        replies += [_completion(tokenizer, choice, ends) for choice in choices]
    return replies


def _completion(tokenizer, choice: Mapping, ends: Sequence[int]) -> Completion:
    tokens = choice.get("token_ids")
    if tokens is None:
        raise AlignlabError(
            "The server returned no token ids.",
            "Update vLLM: it has to know return_token_ids.",
        )
    ended = bool(tokens) and tokens[-1] in ends
    return Completion(completion_text(tokenizer, tokens), tokens, ended)


def _served_models(server: str, timeout: float) -> dict[str, int | None]:
    """The longest text, in tokens, of each of the server's models, by name."""
    listed = _ask(server, "/v1/models", timeout)["data"]
    return {model["id"]: model.get("max_model_len") for model in listed}


def _one_of(served: Mapping[str, object], model: str | None, server: str) -> str:
    if model is None and served:
        return next(iter(served))
    if model not in served:
        raise AlignlabError(
            f"The server at {server} has no model {model!r}.",
            did_you_mean(model, served),
        )
    return model


def _require_room(ids: list[list[int]], new_tokens: int, room: int | None) -> None:
    for number, row in enumerate(ids):
        if not row or (room is not None and len(row) + new_tokens > room):
            raise AlignlabError(
                f"Prompt {number} has {len(row)} tokens, and {new_tokens} new ones are "
                f"to follow; the server's model has {room} positions.",
                "Shorten it, or lower max_new_tokens." if row else "Leave it out.",
            )


def _ask(server: str, path: str, timeout: float, body: dict | None = None) -> dict:
    address = server.rstrip("/") + path
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(address, data, headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        problem = error.read().decode(errors="replace")[:300]
        raise AlignlabError(
            f"The server at {server} refused {path}: {error.code} {problem}",
            "Correct the request, or look into the server's log.",
        ) from error
    except (OSError, ValueError) as error:  # nobody there, no time left, no JSON
        raise AlignlabError(
            f"No vLLM server answers at {server}: {error}.",
            "Start one: vllm serve MODEL --port 8000",
        ) from error
