"""The exact laboratory: so few completions that a policy is a list of probabilities.

The optimum of RLHF, KL, best-of-n and DPO's loss on unlimited comparisons are computed,
not sampled, and a real transformer over a few words can be tested against them.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.models.positions import completion_log_probs
from alignlab.objectives import dpo_loss
from alignlab.seeds import torch_seed
from alignlab.training.sft import Encoded, collate

END, WORDS = "<|end|>", "abcdefghijklmnopqrstuvwxyz"
MOST = 100_000  # completions; enumerating more would be slow
SUMS_TO_ONE = 1e-4  # tolerance: float32 errors over some thousand completions

# --- Policies as probabilities -------------------------------------------------------
# Vectors may be torch, numpy or lists; their last dimension runs over the completions
# of one prompt. Results are float64 torch on the CPU, and gradients pass.


def optimal_policy(
    reference: Float[Tensor, "... completions"],
    reward: Float[Tensor, "... completions"],
    beta: float,
) -> Float[Tensor, "... completions"]:
    r"""The policy that maximises reward minus beta times KL to the reference.

    .. math:: \pi^* = \arg\max_\pi E_\pi[r] - \beta\,\mathrm{KL}(\pi\|\pi_\mathrm{ref})
        = \pi_\mathrm{ref}\, e^{r/\beta} / Z

    Args:
        reference: probabilities.
        reward: of each completion, in any unit.
        beta: in the reward's unit per nat; higher keeps closer to the reference.

    Raises:
        ValueError: if the reference is not a distribution, a reward is not finite, the
            shapes differ or beta is not positive.

    Source: Rafailov et al. (2023), eq. 4 and appendix A.1.
    """
    return _tilted(reference, reward, beta).softmax(dim=-1)


def log_partition(
    reference: Float[Tensor, "... completions"],
    reward: Float[Tensor, "... completions"],
    beta: float,
) -> Float[Tensor, "..."]:
    r"""log Z, the constant of :func:`optimal_policy`, :math:`\log E_\mathrm{ref}
    [e^{r/\beta}]`. The best :func:`regularised_reward` is β log Z."""
    return _tilted(reference, reward, beta).logsumexp(dim=-1)


def regularised_reward(
    policy: Float[Tensor, "... completions"],
    reference: Float[Tensor, "... completions"],
    reward: Float[Tensor, "... completions"],
    beta: float,
) -> Float[Tensor, "..."]:
    r"""The objective of PPO and DPO, :math:`E_\pi[r] - \beta\,\mathrm{KL}(\pi \|
    \pi_\mathrm{ref})`, in the reward's unit."""
    expected = (_distribution("policy", policy) * _vector("reward", reward)).sum(-1)
    return expected - _positive("beta", beta) * kl(policy, reference)


def kl(
    policy: Float[Tensor, "... completions"],
    reference: Float[Tensor, "... completions"],
) -> Float[Tensor, "..."]:
    r"""KL(policy || reference) in nats, :math:`\sum_y \pi(y) \log
    \frac{\pi(y)}{\pi_\mathrm{ref}(y)}`. Infinite if the policy gives a completion that
    the reference cannot."""
    p, q = _distribution("policy", policy), _distribution("reference", reference)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=-1)


def total_variation(
    p: Float[Tensor, "... completions"], q: Float[Tensor, "... completions"]
) -> Float[Tensor, "..."]:
    r""":math:`\tfrac12 \sum_y |p(y) - q(y)|`, from 0 (equal) to 1 (disjoint): the
    largest difference in the probability of any set of completions."""
    return (_distribution("p", p) - _distribution("q", q)).abs().sum(dim=-1) / 2


def best_of_n(
    reference: Float[Tensor, "completions"],
    reward: Float[Tensor, "completions"],
    n: int,
) -> Float[Tensor, "completions"]:
    r"""Probabilities of the best of ``n`` samples; ties are broken at random.

    .. math:: \pi_n(y) = \frac{\pi_\mathrm{ref}(y)}{P(R = r_y)}
        \big[P(R \le r_y)^n - P(R < r_y)^n\big], \quad R = r(Y),\
        Y \sim \pi_\mathrm{ref}

    Args:
        reference: probabilities.
        reward: only its order counts.
        n: samples to pick from; more move further from the reference.

    Raises:
        ValueError: if the reference is not a distribution, the shapes differ or n < 1.
    """
    reference, reward = _distribution("reference", reference), _vector("reward", reward)
    _require_alike(reference=reference, reward=reward)
    if n < 1:
        raise ValueError(f"n is {n}; best-of-n takes at least 1 sample")
    _, level = reward.unique(return_inverse=True)  # 0 is the lowest reward
    mass = torch.zeros(int(level.max()) + 1, dtype=reference.dtype)
    mass = mass.index_add(0, level, reference)
    up_to = mass.cumsum(0).clamp(max=1)  # P(R <= level)
    # up_to^n - below^n, but accurate for small masses.
    best = -(up_to**n) * torch.expm1(n * torch.log1p(-(mass / up_to).clamp(max=1)))
    share = torch.where(reference > 0, reference / mass[level], 0.0)
    return share * best.nan_to_num()[level]


def best_of_n_kl(n: int) -> float:
    r"""KL(best-of-n || reference) if no two samples tie, in nats: log n - (n-1)/n.

    With ties, as in any finite set of completions, it is an upper bound, and
    ``kl(best_of_n(...), reference)`` is exact.

    Raises:
        ValueError: if n < 1.

    Source: Stiennon et al. (2020); that it is a bound, Beirami et al. (2024).
    """
    if n < 1:
        raise ValueError(f"n is {n}; best-of-n takes at least 1 sample")
    return math.log(n) - (n - 1) / n


# --- Unlimited comparisons -----------------------------------------------------------


def bradley_terry(
    reward: Float[Tensor, "completions"],
) -> Float[Tensor, "completions completions"]:
    r"""Row i, column j: the probability that i is preferred to j,
    :math:`\sigma(r_i - r_j)`."""
    reward = _vector("reward", reward)
    return torch.sigmoid(reward[:, None] - reward[None, :])


def expected_dpo_loss(
    policy_log_probs: Float[Tensor, "completions"],
    ref_log_probs: Float[Tensor, "completions"],
    preferences: Float[Tensor, "completions completions"],
    beta: float,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
    drawn_from: Float[Tensor, "completions"] | None = None,
) -> Float[Tensor, ""]:
    r"""Expectation of `alignlab.objectives.dpo_loss` over unlimited comparisons.

    .. math:: \sum_{i \ne j} w_{ij} \, \ell(i \succ j), \quad
        w_{ij} \propto \mu_i \, \mu_j \, P(i \succ j)

    With Bradley–Terry preferences of a reward r, DPO's loss is least at
    ``optimal_policy(reference, r, beta)``, whatever μ is; IPO's is least at
    :func:`ipo_optimum`, which depends on μ.

    Args:
        policy_log_probs, ref_log_probs: of every completion.
        preferences: row i, column j holds the probability that i is preferred to j;
            see :func:`bradley_terry`.
        beta, loss_type, label_smoothing: see :func:`alignlab.objectives.dpo_loss`.
        drawn_from: distribution μ of each of the two completions. None is uniform,
            which weighs rare completions most.

    Raises:
        ValueError: if the shapes differ, the preferences of a pair do not add up to 1,
            or an argument of the loss is out of range.
    """
    preferences = _preferences(preferences)
    count = len(preferences)
    policy = _vector("policy_log_probs", policy_log_probs)
    reference = _vector("ref_log_probs", ref_log_probs)
    mu = torch.full((count,), 1 / count, dtype=torch.float64)
    mu = mu if drawn_from is None else _distribution("drawn_from", drawn_from)
    _require_alike(
        policy_log_probs=policy,
        ref_log_probs=reference,
        preferences=preferences,
        drawn_from=mu,
    )
    i, j = torch.nonzero(~torch.eye(count, dtype=torch.bool), as_tuple=True)
    losses = dpo_loss(
        policy[i],
        policy[j],
        reference[i],
        reference[j],
        beta,
        loss_type,
        label_smoothing,
    )
    weights = mu[i] * mu[j] * preferences[i, j]
    return (weights * losses).sum() / weights.sum()


def ipo_optimum(
    reference: Float[Tensor, "completions"],
    preferences: Float[Tensor, "completions completions"],
    beta: float,
    drawn_from: Float[Tensor, "completions"] | None = None,
) -> Float[Tensor, "completions"]:
    r"""The policy at which IPO's loss is least: its reward is the rate of winning.

    .. math:: \pi \propto \pi_\mathrm{ref} \exp\Big(\tfrac1\beta \sum_j \mu_j
        P(i \succ j)\Big)

    Rates lie between 0 and 1, so log-ratios differ by less than 1/β however certain
    the preferences are. With three completions of which the first always beats the
    second and both the third, a uniform reference and beta 0.1, it is (.9644, .0344,
    .0012), where DPO goes to (1, 0, 0).

    Args:
        reference: probabilities.
        preferences, beta: see :func:`expected_dpo_loss`.
        drawn_from: distribution μ of the rivals; None is uniform.

    Source: Azar et al. (2023), section 5.
    """
    preferences = _preferences(preferences)
    if drawn_from is None:
        return optimal_policy(reference, preferences.mean(dim=1), beta)
    wins = preferences @ _distribution("drawn_from", drawn_from)
    return optimal_policy(reference, wins, beta)


def fit_policy(
    loss: Callable[[Tensor], Tensor],
    start: Float[Tensor, "completions"],
    steps: int = 500,
) -> Float[Tensor, "completions"]:
    """The probabilities at which a loss is least, by L-BFGS on their logits.

    Args:
        loss: maps log-probabilities (K,) to a number, for example
            ``lambda policy: expected_dpo_loss(policy, start.log(), ...)``.
        start: initial probabilities, none of them 0.
        steps: maximal number of iterations. More go further if the loss has no
            minimum, like DPO's on certain preferences.
    """
    logits = _distribution("start", start).log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = loss(logits.log_softmax(dim=-1))
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().softmax(dim=-1)


# --- A transformer over a few words --------------------------------------------------


def few_word_model(words: int = 4, seed: int = 0):
    """``(model, tokenizer)``: a random Llama of 20,000 parameters over a few words.

    The words are "a", "b", "c", ...; one special token serves as EOS and padding. All
    completions up to a length can be listed (:func:`every_completion`).

    Prompts should have two different words, such as "a b". Attention over equal tokens
    gives the same result for any number of them, so a model that has read only "a"
    cannot count, and some policies are out of its reach.

    Args:
        words: size of the vocabulary without EOS; with 4 words and 3 tokens there are
            85 completions.
        seed: of the weights, which give every completion some probability.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if not 1 <= words <= len(WORDS):
        raise ValueError(f"words is {words}; it can be 1 to {len(WORDS)}")
    vocabulary = {token: i for i, token in enumerate([END, *WORDS[:words]])}
    inner = Tokenizer(models.WordLevel(vocabulary))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=END, padding_side="left"
    )
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}"
        "{{ '<|end|>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    )
    torch.manual_seed(torch_seed(seed, "few-word model"))
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def every_completion(
    vocabulary: int, length: int, end: int = 0
) -> list[tuple[int, ...]]:
    """Every completion of at most ``length`` tokens, as token ids: those that end in
    EOS, and those cut off at ``length``. Their probabilities add up to 1.

    Args:
        vocabulary: number of tokens, whose ids are 0 to vocabulary - 1.
        length: longest completion, EOS included (``max_new_tokens``).
        end: id of the EOS token.

    Raises:
        ValueError: if there are too many, or none.
    """
    words = [token for token in range(vocabulary) if token != end]
    count = sum(len(words) ** n for n in range(length + 1))
    if length < 1 or not words or count > MOST:
        raise ValueError(
            f"vocabulary is {vocabulary} and length {length}: expected at least 2 and "
            f"1, and no more than {MOST:,} completions (these have {count:,})"
        )
    ended = [
        (*body, end)
        for n in range(length)
        for body in itertools.product(words, repeat=n)
    ]
    return ended + list(itertools.product(words, repeat=length))


def log_probs_of_all(
    model: nn.Module,
    prompt: Sequence[int],
    completions: Sequence[Sequence[int]],
) -> Float[Tensor, "completions"]:
    """Log-probability of each completion of one prompt, in nats, with gradients.

    ``log_probs_of_all(model, prompt, every_completion(...)).exp()`` is the model's
    policy for that prompt, as the functions above take it.

    Args:
        model: a causal language model of `transformers`.
        prompt: token ids, at least one.
        completions: token ids of each.
    """
    texts = [
        Encoded([*prompt, *tokens], [0] * len(prompt) + [1] * len(tokens))
        for tokens in completions
    ]
    device = next(model.parameters()).device
    batch = {name: x.to(device) for name, x in collate(texts, pad_token_id=0).items()}
    return completion_log_probs(model, **batch).sum(dim=1)


# --- Checks --------------------------------------------------------------------------


def _tilted(reference, reward, beta) -> Tensor:
    """Logits of the optimal policy."""
    reference, reward = _distribution("reference", reference), _vector("reward", reward)
    _require_alike(reference=reference, reward=reward)
    return reference.log() + reward / _positive("beta", beta)


def _vector(name: str, values) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64, device="cpu")
    if values.ndim < 1 or not values.shape[-1] or not torch.isfinite(values).all():
        raise ValueError(
            f"{name} is {values.tolist()}: expected a finite number for each completion"
        )
    return values


def _distribution(name: str, values) -> Tensor:
    values = _vector(name, values)
    total = values.sum(dim=-1)
    if (values < 0).any() or ((total - 1).abs() > SUMS_TO_ONE).any():
        raise ValueError(
            f"{name} has entries from {values.min():g} and sums to {total.tolist()}: "
            "expected probabilities, at least 0 and with a sum of 1"
        )
    return values


def _preferences(values) -> Tensor:
    values = _vector("preferences", values)
    square = values.ndim == 2 and len(values) == values.shape[1] >= 2
    if not square or (values < 0).any():
        raise ValueError(
            f"preferences have shape {tuple(values.shape)} and entries from "
            f"{values.min():g}: expected (completions, completions), at least 2 by 2, "
            "of probabilities"
        )
    if not torch.allclose(values + values.T, torch.ones_like(values), atol=1e-6):
        raise ValueError(
            "preferences of i over j and of j over i must add up to 1, and to 1/2 each "
            "of i over itself"
        )
    return values


def _require_alike(**vectors: Tensor) -> None:
    sizes = {name: vector.shape[-1] for name, vector in vectors.items()}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"completions: {given}; expected equally many in each")


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be greater than 0 and finite")
    return value
