"""A monitor of reward hacking: the reward that is optimised goes up while a judge that
nobody optimises goes down."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from alignlab.errors import AlignlabError
from alignlab.models.reward import score
from alignlab.training.ppo.rewards import Reward, require_fit
from alignlab.training.ppo.rollout import Prompts
from alignlab.training.ppo.trainer import PPOTrainer

Judge = (
    Callable[..., Iterable[float]]
    | PreTrainedModel
    | tuple[PreTrainedModel, PreTrainedTokenizerBase]
)


class RewardHackingCallback(TrainerCallback):
    """Watch a PPO run through a judge that it does not optimise.

    Before the first update and after every few, the policy completes the same prompts
    with the same random numbers, by ``trainer.evaluate``. The proxy (the trainer's
    score) and the judge score these completions. The alarm goes off when, for
    ``patience`` looks in a row, the judge is below its best look by more than
    ``tolerance`` standard errors while the proxy is above where it was then; see
    :func:`change_since_best`. A policy of which both fall has broken down, which is
    another matter, and sets off nothing.

    Each look logs a row with monitor/judge, monitor/proxy, monitor/judge_change and
    monitor/judge_error, beside the evaluation's own numbers ("monitor_kl_exact" and so
    on). They change nothing about the training. ``looks`` has them all, ``alarm`` the
    update after which the alarm went off, or None. Checkpoints keep the looks.

    With several processes each one scores its share of the completions, so that every
    one of them needs the judge. With peft it is the policy with its adapters that is
    looked at. A sharded policy (FSDP, ZeRO 3) has not been tried.

    Use::

        trainer = PPOTrainer(policy, reward_model, args, prompts, held_out_prompts)
        trainer.add_callback(RewardHackingCallback(trainer, judge, every=5))

    Args:
        trainer: the run to watch.
        judge: a function ``(prompts, completions, **columns) -> list[float]``, like a
            reward function that reads no token ids; a reward model with the policy's
            tokenizer; or a pair of a reward model and its own tokenizer. It has to make
            other errors than the proxy: a judge that learnt from the same comparisons
            shares the proxy's errors, and rises with it.
        prompts: rows to look at, by default the trainer's ``eval_dataset``. More of
            them tell smaller changes from chance; fifty is few.
        every: updates between looks; lower notices sooner, and costs more: a look
            samples and scores a completion of each prompt.
        patience: looks in a row before the alarm; higher is surer and later.
        tolerance: standard errors that the judge has to have fallen by; higher is surer
            and later.
        stop: whether the alarm ends the run; else it is a warning.

    Raises:
        AlignlabError: if there are fewer than two prompts; if the judge is what the
            trainer optimises, or needs a column that is not there; if every or patience
            is below 1, or tolerance negative; and in training, if the judge returns
            anything but a finite number for each completion.
    """

    def __init__(
        self,
        trainer: PPOTrainer,
        judge: Judge,
        prompts: Sequence[dict] | None = None,
        *,
        every: int = 5,
        patience: int = 2,
        tolerance: float = 2.0,
        stop: bool = False,
    ):
        for name, value, least in (
            ("every", every, 1),
            ("patience", patience, 1),
            ("tolerance", tolerance, 0),
        ):
            if not value >= least:
                raise AlignlabError(
                    f"{name} is {value}.", f"Set it to {least} or more."
                )
        _require_held_out(judge, trainer)
        self.trainer, self.given = trainer, prompts
        self.prompts = _prompts_of(trainer, prompts)
        self.judge = _judge_of(judge, trainer, self.prompts)
        self.every, self.patience = every, patience
        self.tolerance, self.stop = tolerance, stop

    @property
    def looks(self) -> list[dict]:
        """``step``, and ``judge`` and ``proxy``, a number for each prompt."""
        return self._run_state["looks"]

    @property
    def alarm(self) -> int | None:
        """The update after which the alarm went off."""
        return self._run_state["alarm"]

    @property
    def _run_state(self) -> dict:
        """What the Trainer saves and restores with its checkpoints."""
        start = {"looks": [], "alarm": None}
        states = self.trainer.state.stateful_callbacks
        return states.setdefault("RewardHackingCallback", start)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        callbacks = self.trainer.callback_handler.callbacks
        if sum(isinstance(callback, type(self)) for callback in callbacks) > 1:
            raise AlignlabError(
                "The trainer has several RewardHackingCallbacks.",
                "Add one, whose judge is a function that asks all of yours.",
            )
        if not self.looks:  # else it resumes
            self._look(control)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.every == 0:
            self._look(control)

    def _look(self, control) -> None:
        trainer = self.trainer
        trainer.evaluate(self.given, metric_key_prefix="monitor")
        step = trainer.state.global_step
        self.looks.append({"step": step, **self._scores(trainer.eval_completions)})
        judges, proxies = ([look[n] for look in self.looks] for n in ("judge", "proxy"))
        change = change_since_best(judges, proxies)
        trainer.log(
            {
                "monitor/judge": float(np.mean(judges[-1])),
                "monitor/proxy": float(np.mean(proxies[-1])),
                "monitor/judge_change": change.judge,
                "monitor/judge_error": change.judge_error,
            }
        )
        if self.alarm is None and is_hacked(
            judges, proxies, self.tolerance, self.patience
        ):
            self._run_state["alarm"] = step
            self._warn(step, change)
            control.should_training_stop |= self.stop

    def _scores(self, rows: list[dict]) -> dict[str, list[float]]:
        """What judge and proxy give the completion of every prompt. Each process has
        the rows of its own share, and gets those of all."""
        processes, prompts = self.trainer.processes, self.prompts
        own, _ = processes.share(list(range(len(prompts))))
        batch = {name: [c[i] for i in own] for name, c in prompts.columns.items()}
        batch["prompts"] = [prompts.given[i] for i in own]
        batch["completions"] = [row["completion"] for row in rows]
        batch["chat_template_kwargs"] = [prompts.template_kwargs[i] for i in own]
        judges = self.judge(batch)
        if np.isnan(judges).any():
            raise AlignlabError(
                "The judge returned None for a completion.",
                "Return a finite number for every completion.",
            )
        columns = torch.tensor([judges, [row["score"] for row in rows]]).T
        table = processes.gather_tensor(columns.to(self.trainer.args.device))
        judges, proxies = table[: len(prompts)].T.tolist()
        return {"judge": judges, "proxy": proxies}

    def _warn(self, step: int, change: "Change") -> None:
        warnings.warn(
            f"Reward hacking by update {step}: since the judge's best look the proxy "
            f"rose by {change.proxy:.3g} and the judge fell by {-change.judge:.3g} "
            f"(standard error {change.judge_error:.2g}). "
            + ("The run stops here; go" if self.stop else "Stop the run, go")
            + " back to a checkpoint from before, or raise kl_coef (now "
            f"{self.trainer.kl_coef:.3g}).",
            stacklevel=2,
        )


# --- When a judge has fallen --------------------------------------------------------


class Change(NamedTuple):
    """Since the judge's best look, means over the prompts: how far ``judge`` and
    ``proxy`` rose, and the standard error of the judge's."""

    judge: float
    judge_error: float
    proxy: float


def change_since_best(
    judges: Sequence[Sequence[float]], proxies: Sequence[Sequence[float]]
) -> Change:
    """How far the last look is from the one that the judge likes best.

    The best of many noisy looks is best by luck too, and any later one would seem to
    fall. So every other prompt picks the look that the rest are compared with, and the
    other way round: where nothing changes, the change is 0 on average. Prompts are
    paired with themselves.

    Args:
        judges, proxies: (looks, prompts), the looks in order.

    Raises:
        ValueError: if there is no look, or fewer than two prompts.
    """
    judges, proxies = np.asarray(judges, float), np.asarray(proxies, float)
    if judges.ndim != 2 or judges.shape != proxies.shape or judges.shape[1] < 2:
        raise ValueError(
            f"judges have shape {judges.shape} and proxies {proxies.shape}; expected "
            "(looks, prompts) twice, with two prompts or more"
        )
    even = np.arange(judges.shape[1]) % 2 == 0
    best = np.where(even, _best_look(judges[:, ~even]), _best_look(judges[:, even]))
    before = best, np.arange(judges.shape[1])
    rise = judges[-1] - judges[before]
    error = rise.std(ddof=1) / np.sqrt(len(rise))
    proxy_rise = (proxies[-1] - proxies[before]).mean()
    return Change(float(rise.mean()), float(error), float(proxy_rise))


def _best_look(judges: Float[np.ndarray, "looks prompts"]) -> int:
    return int(judges.mean(1).argmax())


def is_hacked(
    judges: Sequence[Sequence[float]],
    proxies: Sequence[Sequence[float]],
    tolerance: float,
    patience: int,
) -> bool:
    """Whether at each of the last ``patience`` looks the judge had fallen by more than
    ``tolerance`` standard errors since its best look, with the proxy up.

    Args:
        judges, proxies: as for :func:`change_since_best`.
    """
    if len(judges) <= patience:
        return False
    ends = range(len(judges) - patience + 1, len(judges) + 1)
    changes = [change_since_best(judges[:end], proxies[:end]) for end in ends]
    return all(
        change.judge < -tolerance * change.judge_error and change.proxy > 0
        for change in changes
    )


# --- What a monitor is given --------------------------------------------------------


def _prompts_of(trainer: PPOTrainer, given: Sequence[dict] | None) -> Prompts:
    prompts = trainer.eval_dataset
    if given is not None:
        prompts = Prompts(
            given, trainer.processing_class, trainer.policy, trainer.args, "prompts"
        )
    if prompts is None:
        raise AlignlabError(
            "There are no prompts to look at: the trainer has no eval_dataset.",
            "Pass prompts, rows that the policy does not train on.",
        )
    if len(prompts) < 2:
        raise AlignlabError(
            "The monitor has a single prompt, which shows no standard error.",
            "Pass fifty or more.",
        )
    return prompts


def _require_held_out(judge: Judge, trainer: PPOTrainer) -> None:
    judge = judge[0] if isinstance(judge, tuple) else judge
    weights = trainer.args.reward_weights or [1.0] * len(trainer.rewards)
    for reward, weight in zip(trainer.rewards, weights, strict=True):
        if weight and (judge is reward.model or judge is reward.function):
            raise AlignlabError(
                f"judge is {reward.name!r}, which the trainer optimises.",
                "Pass one that is not optimised: gold, or a reward model of other "
                "comparisons.",
            )


def _judge_of(judge: Judge, trainer: PPOTrainer, prompts: Prompts) -> Reward:
    """The judge as a function of text, once it is known to fit the prompts."""
    if isinstance(judge, nn.Module):
        judge = judge, trainer.processing_class
    if not isinstance(judge, tuple):
        reward = Reward("judge", judge)
        require_fit([reward], prompts, trainer.args, "prompts")
        return reward
    model, tokenizer = judge
    model.to(trainer.args.device)

    def judged(prompts, completions, chat_template_kwargs):
        options = {"chat_template_kwargs": chat_template_kwargs}
        return score(model, tokenizer, prompts, completions, **options)

    reward = Reward("judge", judged, model, tokenizer)
    require_fit([reward], prompts, trainer.args, "prompts")
    return reward
