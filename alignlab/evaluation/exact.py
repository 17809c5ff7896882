"""The exact laboratory: so few completions that a policy is a list of probabilities.

The optimum that RLHF looks for, the KL divergence to the reference, best-of-n and what
DPO learns from unlimited comparisons are then computed instead of sampled. A real
transformer over a few words can be held to them.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.models.likelihood import completion_log_probs
from alignlab.objectives import dpo_loss
from alignlab.training.sft import Encoded, collate

END, WORDS = "<|end|>", "abcdefghijklmnopqrstuvwxyz"
MOST = 100_000  # completions; more would no longer be quick to enumerate
SUMS_TO_ONE = 1e-4  # float32 log-probabilities of some thousand completions do

# --- Policies as probabilities -------------------------------------------------------
# Vectors may be torch, numpy or lists; the last dimension is over the completions of
# one prompt. What comes back is float64 torch on the CPU, and gradients pass.


def optimal_policy(
    reference: Float[Tensor, "... completions"],
    reward: Float[Tensor, "... completions"],
    beta: float,
) -> Float[Tensor, "... completions"]:
    r"""The policy that RLHF looks for: most reward for its distance to the reference.

    .. math:: \pi^* = \arg\max_\pi E_\pi[r] - \beta\,\mathrm{KL}(\pi\|\pi_\mathrm{ref})
        = \pi_\mathrm{ref}\, e^{r/\beta} / Z

    Args:
        reference: probabilities.
        reward: of each completion, in any unit.
        beta: higher keeps closer to the reference, in the reward's unit per nat.

    Raises:
        ValueError: if the reference is no distribution, a reward is not finite, the
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
    r"""What PPO and DPO both climb, :math:`E_\pi[r] - \beta\,\mathrm{KL}(\pi \|
    \pi_\mathrm{ref})`, in the reward's unit."""
    expected = (_distribution("policy", policy) * _vector("reward", reward)).sum(-1)
    return expected - _positive("beta", beta) * kl(policy, reference)


def kl(
    policy: Float[Tensor, "... completions"],
    reference: Float[Tensor, "... completions"],
) -> Float[Tensor, "..."]:
    r"""KL(policy || reference) in nats, :math:`\sum_y \pi(y) \log
    \frac{\pi(y)}{\pi_\mathrm{ref}(y)}`: how many nats an observer of the policy's
    replies gains on the reference per reply. Infinite where the reference excludes what
    the policy does."""
    p, q = _distribution("policy", policy), _distribution("reference", reference)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=-1)


def total_variation(
    p: Float[Tensor, "... completions"], q: Float[Tensor, "... completions"]
) -> Float[Tensor, "..."]:
    r""":math:`\tfrac12 \sum_y |p(y) - q(y)|`, from 0 (the same) to 1 (nothing shared):
    the largest difference in the probability of any set of completions."""
    return (_distribution("p", p) - _distribution("q", q)).abs().sum(dim=-1) / 2


def best_of_n(
    reference: Float[Tensor, "completions"],
    reward: Float[Tensor, "completions"],
    n: int,
) -> Float[Tensor, "completions"]:
    r"""Probabilities of the best of ``n`` samples; equal rewards are drawn between.

    .. math:: \pi_n(y) = \frac{\pi_\mathrm{ref}(y)}{P(R = r_y)}
        \big[P(R \le r_y)^n - P(R < r_y)^n\big], \quad R = r(Y),\
        Y \sim \pi_\mathrm{ref}

    Args:
        reference: probabilities.
        reward: what is best; only its order counts.
        n: samples per prompt; more moves further from the reference.

    Raises:
        ValueError: if the reference is no distribution, the shapes differ or n < 1.
    """
    reference, reward = _distribution("reference", reference), _vector("reward", reward)
    _require_alike(reference=reference, reward=reward)
    if n < 1:
        raise ValueError(f"n is {n}; best-of-n takes at least 1 sample")
    _, level = reward.unique(return_inverse=True)  # 0 is the lowest reward
    mass = torch.zeros(int(level.max()) + 1, dtype=reference.dtype)
    mass = mass.index_add(0, level, reference)
    up_to = mass.cumsum(0).clamp(max=1)  # P(R <= level)
    # Not up_to^n - below^n: two numbers near 1 would leave no digit of a small one.
    best = -(up_to**n) * torch.expm1(n * torch.log1p(-(mass / up_to).clamp(max=1)))
    share = torch.where(reference > 0, reference / mass[level], 0.0)
    return share * best.nan_to_num()[level]


def best_of_n_kl(n: int) -> float:
    r"""KL(best-of-n || reference) if no two samples tie, in nats: log n - (n-1)/n.

    With ties, as in any finite world, it is an upper bound;
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
    r"""`alignlab.objectives.dpo_loss` as unlimited comparisons would give it.

    .. math:: \sum_{i \ne j} w_{ij} \, \ell(i \succ j), \quad
        w_{ij} \propto \mu_i \, \mu_j \, P(i \succ j)

    With Bradley–Terry preferences of a reward r, DPO's is least at
    ``optimal_policy(reference, r, beta)``, whatever the pairs are drawn from; IPO's at
    :func:`ipo_optimum`, which does depend on it.

    Args:
        policy_log_probs, ref_log_probs: of every completion.
        preferences: row i, column j holds the probability that i is preferred to j;
            see :func:`bradley_terry`.
        beta, loss_type, label_smoothing: see :func:`alignlab.objectives.dpo_loss`.
        drawn_from: the distribution μ of each of the two completions. None takes them
            all equally often, which reaches rare ones soonest.

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
    r"""Where IPO's loss is least: the reward is the rate at which a completion wins.

    .. math:: \pi \propto \pi_\mathrm{ref} \exp\Big(\tfrac1\beta \sum_j \mu_j
        P(i \succ j)\Big)

    A rate is never above 1, so that log-ratios differ by less than 1/β however sure the
    preferences are. On three completions of which the first always beats the second and
    both the third, with a uniform reference and beta 0.1, it is (.9644, .0344, .0012),
    where DPO goes to (1, 0, 0).

    Args:
        reference: probabilities.
        preferences, beta: see :func:`expected_dpo_loss`.
        drawn_from: the distribution μ of the rivals; None takes all equally often.

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
        loss: log-probabilities (K,) to a number, for example
            ``lambda policy: expected_dpo_loss(policy, start.log(), ...)``.
        start: probabilities to begin at, none of them 0.
        steps: iterations at most. A loss without a minimum, as DPO's on preferences
            that are certain, goes as far as they take it.
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

    The words are "a", "b", "c" ...; the one special token ends a reply and pads too.
    So every reply up to a length can be written down (:func:`every_completion`), and
    its text says which one it is.

    Prompts need two different words, such as "a b". Attention over equal tokens gives
    the same however many they are, so that a model that has read "a" cannot tell how
    often, and some policies are out of its reach.

    Args:
        words: how many; three tokens of 4 words make 85 completions.
        seed: of the weights. The model is not uniform, but leaves nothing out.
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
    torch.manual_seed(seed)
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
    """All that a model can reply in ``length`` tokens, as token ids: whatever ends in
    the ending token before that, and whatever is cut off there without one. Their
    probabilities add up to 1.

    Args:
        vocabulary: tokens in all, 0 to vocabulary - 1.
        length: of a reply at most, the ending token included (``max_new_tokens``).
        end: the token that ends a reply.

    Raises:
        ValueError: if there are too many, or none.
    """
    going_on = [token for token in range(vocabulary) if token != end]
    count = sum(len(going_on) ** n for n in range(length + 1))
    if length < 1 or not going_on or count > MOST:
        raise ValueError(
            f"vocabulary is {vocabulary} and length {length}: expected at least 2 and "
            f"1, and no more than {MOST:,} completions (these have {count:,})"
        )
    ended = [
        (*body, end)
        for n in range(length)
        for body in itertools.product(going_on, repeat=n)
    ]
    return ended + list(itertools.product(going_on, repeat=length))


def log_probs_of_all(
    model: nn.Module,
    prompt: Sequence[int],
    completions: Sequence[Sequence[int]],
) -> Float[Tensor, "completions"]:
    """Log-probability of each completion of one prompt, in nats, with its gradient.

    ``log_probs_of_all(model, prompt, every_completion(...)).exp()`` is the model's
    whole policy for that prompt, to put into the functions above.

    Args:
        model: a causal language model of `transformers`.
        prompt: token ids, at least one.
        completions: token ids of each.
    """
    before = [0] * len(prompt)
    texts = [
        Encoded([*prompt, *completion], before + [1] * len(completion))
        for completion in completions
    ]
    device = next(model.parameters()).device
    batch = {name: x.to(device) for name, x in collate(texts, pad_token_id=0).items()}
    return completion_log_probs(model, **batch).sum(dim=1)


# --- Checks --------------------------------------------------------------------------


def _tilted(reference, reward, beta) -> Tensor:
    """log of the optimum before it is normalised."""
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
            "expected probabilities, which are at least 0 and sum to 1"
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
        raise ValueError(f"completions are {given}: expected as many in each")


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be greater than 0 and finite")
    return value
