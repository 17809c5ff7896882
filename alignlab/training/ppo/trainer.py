"""PPO for language models, on `transformers.Trainer`.

One step of the Trainer is one update, and :meth:`PPOTrainer.training_step` is all of
it: roll out, score, advantages, epochs. Checkpoints, schedules, callbacks, peft and
several devices are the Trainer's.
"""

import contextlib
import copy
import functools
import json
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)

from alignlab.errors import AlignlabError
from alignlab.models.lean import lean_layers
from alignlab.models.sampler import sample
from alignlab.objectives import (
    adaptive_kl_coef,
    entropy,
    exact_kl,
    explained_variance,
    generalized_advantage_estimate,
    kl_estimate,
    masked_mean,
    ppo_diagnostics,
    ppo_policy_loss,
    ppo_value_loss,
    whiten,
)
from alignlab.objectives.policy import EPSILON
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.rewards import (
    RewardSource,
    moments,
    named_rewards,
    reward_sources,
)
from alignlab.training.ppo.rollout import (
    Episodes,
    PolicyAndValue,
    Prompts,
    alike,
    completion_logits,
    pad_left,
    random_stream,
    training_mode,
)

VALUE_FILE = "value.safetensors"  # what a checkpoint holds beside the plain policy
EVALUATION = 2**32  # a random stream that no update has
STEP_NUMBERS = (
    "loss",
    "policy_loss",
    "value_loss",
    "approx_kl",
    "clip_fraction",
    "ratio",
    "grad_norm",
)


class PPOTrainer(Trainer):
    """Teach a causal language model, in place, to complete prompts for reward.

    ``trainer.policy`` is the plain model throughout. ``trainer.state.log_history`` has
    a row for each update, of the policy as it was when the update began:

    - score (mean and score_std), reward/NAME of each reward function, return (score
      less what KL costs in the reward), completion_length (tokens), eos_rate;
    - kl (estimated by k1) and kl_exact (over the vocabulary), nats per completion to
      the reference, kl_coef; entropy, nats per token;
    - value (mean), explained_variance of the returns by the values;
    - over the update's minibatches: loss, policy_loss, value_loss, grad_norm, approx_kl
      (nats per token), clip_fraction, ratio; epochs that were made;
    - episodes so far, learning_rate, tokens_per_second (prompt and completion, over the
      whole update), seconds_rollout, seconds_reward, seconds_update.

    On a CPU, Llama and its relatives compute norms and rotary positions as
    :mod:`alignlab.models.lean` does while this trains or evaluates: the same numbers
    but for rounding, in less time.

    ``trainer.completions`` holds the last update's episodes as a list of dicts, and
    ``trainer.eval_completions`` those of the last evaluation.

    Args:
        model: a causal language model, or its folder or Hub id.
        reward_funcs: one or several of: a function ``(prompts, completions, **columns)
            -> list[float]``, which is given the data set's columns that it names (and
            ``completion_ids``, if it names that); a sequence classifier with one label
            that reads the policy's tokens; a pair of such a model and its own
            tokenizer. Completions come as text without special tokens, prompts as they
            stand in the data.
        args: a :class:`PPOConfig`.
        train_dataset: rows with a ``prompt``: text, which is read as it is, or chat
            messages, which go through the chat template.
        eval_dataset: the same, for :meth:`evaluate`; ``eval_strategy`` says when.
        processing_class: the tokenizer; by default that of the model's folder.
        ref_model: what KL is measured to; by default the policy as it comes in. With
            peft adapters that is the same model with its adapters off, and no copy.
        value_model: by default a linear head, which starts at 0, on the policy's own
            trunk. Or a sequence classifier with one label of its own trunk; or "reward
            model" for a copy of the reward model.
        peft_config: put these adapters on the model and train only them.
        callbacks: as for `transformers.Trainer`.

    Raises:
        AlignlabError: before any training if something does not fit together; during
            training if a reward is not a finite number or the loss is not.
    """

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        reward_funcs: RewardSource | Sequence[RewardSource],
        args: PPOConfig | None = None,
        train_dataset: Sequence[dict] | None = None,
        eval_dataset: Sequence[dict] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        ref_model: PreTrainedModel | None = None,
        value_model: PreTrainedModel | Literal["reward model"] | None = None,
        peft_config=None,
        callbacks: list[TrainerCallback] | None = None,
    ):
        args = PPOConfig() if args is None else args
        model, tokenizer = _loaded(model, processing_class)
        sources = reward_sources(reward_funcs)
        if value_model == "reward model":
            value_model = _copied_reward_model(sources)
        _check_models(model, ref_model, value_model, sources, tokenizer)
        self.stop = _stop_token(args, tokenizer, _vocabulary(model))
        self.prompts = Prompts(train_dataset, tokenizer, "train_dataset", args, model)
        if eval_dataset is not None:
            eval_dataset = Prompts(eval_dataset, tokenizer, "eval_dataset", args, model)
        self.rewards = named_rewards(sources, tokenizer, args, self.prompts)

        use_cache = getattr(model.config, "use_cache", None)
        if peft_config is not None:
            model = _with_adapters(model, peft_config)
        self.policy = model
        self.adapted = hasattr(model, "disable_adapter")
        if ref_model is None and not self.adapted:
            ref_model = copy.deepcopy(model)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # there are none
        folder = Path(args.output_dir)
        unasked = args.save_strategy == "no" and not folder.exists()
        super().__init__(
            model=PolicyAndValue(model, value_model, args.detach_value),
            args=args,
            train_dataset=self.prompts,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        if unasked:  # the Trainer makes it, whether or not anything is to come
            with contextlib.suppress(OSError):  # not empty, or gone: others share it
                folder.rmdir()
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)  # thirty numbers an update
        if use_cache is not None:
            model.config.use_cache = use_cache  # the Trainer turns it off for good
        if self.adapted and args.gradient_checkpointing:
            model.enable_input_require_grads()
        self.ref_model = self._frozen(ref_model)
        for reward in self.rewards:
            if reward.model is not None:
                reward.model.to(args.device)
        self.completions: list[dict] = []
        self.eval_completions: list[dict] = []
        self._rows: list[dict] = []  # of the updates since the last log

    # --- One update

    @lean_layers()
    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """One update; the Trainer's own optimizer step that follows finds no gradient,
        and changes nothing."""
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)  # see get_train_dataloader
        args, update, clock = self.args, self.state.global_step, _Clock()

        # Roll out: the policy completes the prompts; policy, reference and value
        # function say what they think of each token.
        rows = self._my_rows(update)
        size = args.local_rollout_forward_batch_size or len(rows)
        episodes = self._roll_out(rows, self.prompts, size, args.seed, update)
        clock.lap("rollout")

        # Score: from here on every process holds the whole batch.
        texts = self._score(episodes, rows, self.prompts)
        episodes = self._gathered(episodes)
        clock.lap("reward")
        score = self._weighted(episodes.raw_rewards)
        row = self._measured(episodes, score)
        self.completions = self._table(rows, self.prompts, texts, episodes, score)

        # Advantages: how much better each token did than the value function expected.
        score = self._optimised(score, episodes.ended)
        rewards = token_rewards(episodes, score, self.kl_coef, args)
        scale = set_advantages(episodes, rewards, args)
        row |= _judged(episodes, rewards)

        # Epochs: over the batch, in minibatches, with both losses clipped.
        within = self._within_kl_limit(row["kl_exact"])
        steps = self._epochs(model, episodes, scale) if within else []
        clock.lap("update")

        row |= {name: _mean_of(steps, name) for name in STEP_NUMBERS if steps}
        row["epochs"] = len(steps) // args.num_mini_batches
        row["episodes"] = (update + 1) * args.batch_size
        row["kl_coef"] = self.kl_coef
        row["tokens_per_second"] = episodes.widths.sum().item() / clock.total
        self._rows.append(row | clock.laps)
        self._adapt_kl_coef(row["kl_exact"], len(score))
        return torch.tensor(row.get("loss", 0.0), device=args.device)

    def _epochs(self, model, episodes: Episodes, scale: float) -> list[dict]:
        """Passes over the batch, each in minibatches of a new order."""
        args, update, steps = self.args, self.state.global_step, []
        for epoch in range(args.num_ppo_epochs):
            order = random_stream(args.seed, update, epoch).permutation(args.batch_size)
            for minibatch in np.array_split(order, args.num_mini_batches):
                steps.append(self._step(model, episodes, minibatch, scale))
            if self._far_enough(steps[-args.num_mini_batches :]):
                break
        return steps

    def _far_enough(self, epoch: list[dict[str, float]]) -> bool:
        limit = self.args.early_stop_kl
        return limit is not None and _mean_of(epoch, "approx_kl") > limit

    def _step(self, model, episodes: Episodes, rows, scale: float) -> dict[str, float]:
        """One optimizer step on the episodes of these rows of the batch.

        Every process takes its share, and every micro-batch counts by its tokens, so
        that neither accumulation nor the number of processes changes the gradient.
        """
        all_tokens = episodes.mask[rows].sum()
        training_mode(model, dropout=not self.args.disable_dropout)
        numbers = torch.zeros(len(STEP_NUMBERS) - 1, device=self.args.device)
        micros = self._micro_batches(episodes, rows)
        for micro in micros:
            batch = episodes.take(micro)
            weight = batch.mask.sum() / all_tokens
            with self._sync_if(micro is micros[-1], model):
                loss, found = self._loss(model, batch, scale)
                self._backward(loss * weight)
            numbers += weight * torch.stack([loss.detach(), *found])
        numbers = self.accelerator.reduce(numbers, "sum").tolist()
        limit = self.args.max_grad_norm if self.args.max_grad_norm > 0 else math.inf
        norm = self.accelerator.clip_grad_norm_(model.parameters(), limit)
        step = dict(zip(STEP_NUMBERS, [*numbers, float(norm)], strict=True))
        self._require_sane(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return step

    def _micro_batches(self, episodes: Episodes, rows: np.ndarray) -> list[np.ndarray]:
        """This process's share of a minibatch, in as many parts as gradients are
        accumulated over, or more."""
        share = np.array_split(rows, self.accelerator.num_processes)
        share = share[self.accelerator.process_index]
        parts = np.array_split(share, self.args.gradient_accumulation_steps)
        return [group for part in parts for group in self._alike(episodes, part)]

    def _sync_if(self, last: bool, model):
        """Only the last micro-batch exchanges gradients between processes."""
        self.accelerator.gradient_state._set_sync_gradients(last)
        return contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    def _backward(self, part: Tensor) -> None:
        """Add the gradient of this part of a sum over micro-batches and processes."""
        # Gradients are averaged over processes. DeepSpeed would also average them over
        # micro-batches.
        sums = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
        self.accelerator.backward(part * self.accelerator.num_processes, **sums)

    def _alike(self, episodes: Episodes, rows: np.ndarray) -> list[np.ndarray]:
        """These rows in groups of like length; all in one where every process has to
        call the model equally often."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return [rows]
        widths = episodes.widths[torch.from_numpy(rows)].cpu().numpy()
        return [rows[group] for group in alike(widths, self.args.device)]

    def _loss(self, model, batch: Episodes, scale: float) -> tuple[Tensor, list]:
        """The loss of a micro-batch, and what there is to see of it, as means over its
        tokens."""
        args = self.args
        logits, values = model(batch.input_ids, batch.asked)  # (N, V), (N,)
        logits = self._tempered(logits)
        log_probs = batch.spread(_log_probs(logits, batch.tokens))  # (B, T)
        values = batch.spread(values)
        clipped = batch.old_log_probs, batch.advantages, batch.mask, args.cliprange
        policy_loss = ppo_policy_loss(log_probs, *clipped)
        value_loss = ppo_value_loss(
            values, batch.values, batch.returns, batch.mask, args.cliprange_value
        )
        loss = policy_loss + args.vf_coef * value_loss
        if args.entropy_coef:
            loss = loss - args.entropy_coef * entropy(logits).mean()
        if self.kl_coef and (args.kl_in == "loss" or args.kl_estimator == "exact"):
            # Advantages have been divided by the scale, so its price is as well.
            loss = loss + self.kl_coef / scale * self._kl_loss(logits, log_probs, batch)
        with torch.no_grad():
            found = ppo_diagnostics(log_probs, *clipped)
        seen = [found[name] for name in ("approx_kl", "clip_fraction", "ratio")]
        return loss, [policy_loss.detach(), value_loss.detach(), *seen]

    def _kl_loss(self, logits, log_probs, batch: Episodes) -> Tensor:
        """Mean KL to the reference per token, differentiable."""
        if self.args.kl_estimator == "exact":
            reference = self._ref_logits(batch.input_ids, batch.asked)
            return exact_kl(logits, reference).mean()
        kl = kl_estimate(log_probs, batch.ref_log_probs, self.args.kl_estimator)
        # As if the policy itself, and not the one before the update, had sampled.
        ratio = (log_probs.detach() - batch.old_log_probs).exp()
        return masked_mean(ratio * kl, batch.mask)

    # --- Rolling out and scoring

    @torch.no_grad()
    def _roll_out(
        self, rows: list[int], prompts: Prompts, size: int, *stream: int
    ) -> Episodes:
        """Complete the prompts of these rows, ``size`` at once, and look at each token
        with policy, value function and reference."""
        first = self.accelerator.process_index * len(rows)
        self._module.eval()
        parts = []
        for start in range(0, len(rows), size):
            ids = [prompts.ids[i] for i in rows[start : start + size]]
            seed = random_stream(*stream, first + start).integers(2**63)
            generator = torch.Generator(self.args.device).manual_seed(int(seed))
            parts.append(self._episodes_of(ids, generator))
        return Episodes.join(parts)

    def _episodes_of(self, ids: list[list[int]], generator) -> Episodes:
        args, pad = self.args, self.processing_class.pad_token_id
        # Where parameters are sharded, all processes have to call the model equally
        # often, so no row may end early.
        stop = None if self._sharded else self.stop
        model = functools.partial(self._module)
        model.config = self.policy.config  # a DeepSpeed engine has one of its own
        sampled = sample(
            model,
            *(x.to(args.device) for x in pad_left(ids, pad)),
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            eos_token_id=stop,
            pad_token_id=pad,
            generator=generator,
        )
        episodes = Episodes.pack(ids, sampled, self.stop, pad)
        groups = self._alike(episodes, np.arange(len(ids)))
        parts = [self._looked_at(episodes.take(rows)) for rows in groups]
        return Episodes.join(parts).take(np.argsort(np.concatenate(groups)))

    def _looked_at(self, batch: Episodes) -> Episodes:
        """With what policy, value function and reference say of each token."""
        logits, values = self._module(batch.input_ids, batch.asked)
        logits, tokens = self._tempered(logits), batch.tokens
        ref_logits = self._ref_logits(batch.input_ids, batch.asked)
        batch.old_log_probs = batch.spread(_log_probs(logits, tokens))
        batch.ref_log_probs = batch.spread(_log_probs(ref_logits, tokens))
        batch.values = batch.spread(values)
        batch.entropy = batch.spread(entropy(logits))
        batch.exact_kl = batch.spread(exact_kl(logits, ref_logits))
        return batch

    @torch.no_grad()
    def _ref_logits(self, input_ids: Tensor, asked: Tensor) -> Tensor:
        if self.ref_model is None:
            with self.policy.disable_adapter():
                logits, _ = self._module(input_ids, asked)
        else:
            logits, _ = completion_logits(self.ref_model, input_ids, asked)
        return self._tempered(logits)

    def _tempered(self, logits: Tensor) -> Tensor:
        temperature = self.args.temperature
        return logits.float() if temperature == 1 else logits.float() / temperature

    def _score(self, episodes: Episodes, rows: list[int], prompts: Prompts) -> list:
        """Ask the reward functions; return the completions' texts."""
        completion_ids = episodes.completion_ids()
        texts = self.processing_class.batch_decode(
            completion_ids, skip_special_tokens=True
        )
        batch = {name: [c[i] for i in rows] for name, c in prompts.columns.items()}
        batch["prompts"] = [prompts.given[i] for i in rows]
        batch["completions"] = [text.strip() for text in texts]
        batch["prompt_ids"] = [prompts.ids[i] for i in rows]
        batch["completion_ids"] = completion_ids
        columns = [reward(batch) for reward in self.rewards]
        episodes.raw_rewards = torch.tensor(
            columns, device=self.args.device
        ).T  # (B, R)
        return batch["completions"]

    def _weighted(self, raw_rewards: Tensor) -> Tensor:
        weights = self.args.reward_weights or [1.0] * len(self.rewards)
        return raw_rewards @ raw_rewards.new_tensor(weights)  # (B,)

    def _optimised(self, score: Tensor, ended: Tensor) -> Tensor:
        """Scores as they are optimised: normalised, clipped, less the penalty."""
        how, limit = self.args.normalize_rewards, self.args.cliprange_reward
        if how != "none":
            count, mean, squares = self._kept["scores"]
            if how == "running" or count == 0:
                count, mean, squares = moments(count, mean, squares, score)
                self._kept["scores"] = [count, mean, squares]
            score = (score - mean) / math.sqrt(squares / count + EPSILON)
        if limit is not None:
            score = score.clamp(-limit, limit)
        return score - (self.args.missing_eos_penalty or 0.0) * ~ended

    def _measured(self, episodes: Episodes, score: Tensor) -> dict[str, float]:
        """What the episodes say about the policy that made them."""
        mask = episodes.mask
        log_ratio = kl_estimate(episodes.old_log_probs, episodes.ref_log_probs, "k1")
        row = {
            "score": score.mean().item(),
            "score_std": score.std(correction=0).item(),
        }
        for reward, column in zip(self.rewards, episodes.raw_rewards.T, strict=True):
            row[f"reward/{reward.name}"] = column.mean().item()
        row["kl"] = (log_ratio * mask).sum(1).mean().item()
        row["kl_exact"] = episodes.exact_kl.sum(1).mean().item()
        row["entropy"] = masked_mean(episodes.entropy, mask).item()
        row["completion_length"] = episodes.lengths.float().mean().item()
        row["eos_rate"] = episodes.ended.float().mean().item()
        return row

    def _table(self, rows, prompts: Prompts, texts, episodes: Episodes, score):
        """This process's completions as dicts, one each."""
        first = self.accelerator.process_index * len(rows)
        places = (first + np.arange(len(rows))) % len(score)
        here = episodes.take(places)
        kl = ((here.old_log_probs - here.ref_log_probs) * here.mask).sum(1)
        columns = {
            "prompt": [prompts.given[i] for i in rows],
            "completion": texts,
            "score": score[places].tolist(),
            **{
                f"reward/{reward.name}": column.tolist()
                for reward, column in zip(self.rewards, here.raw_rewards.T, strict=True)
            },
            "kl": kl.tolist(),
            "length": here.lengths.tolist(),
            "ended": here.ended.tolist(),
        }
        return [dict(zip(columns, row)) for row in zip(*columns.values())]

    # --- Between updates

    @property
    def kl_coef(self) -> float:
        """The price of a nat of KL at present; fixed, unless there is a kl_target."""
        return self._kept["kl_coef"]

    @property
    def _kept(self) -> dict:
        """What changes from update to update beside parameters and optimizer, where the
        Trainer writes it into its checkpoints and finds it again."""
        start = {"kl_coef": self.args.kl_coef, "scores": [0, 0.0, 0.0]}
        return self.state.stateful_callbacks.setdefault("PPOTrainer", start)

    def _adapt_kl_coef(self, kl: float, episodes: int) -> None:
        if self.args.kl_target is not None:
            self._kept["kl_coef"] = adaptive_kl_coef(
                self.kl_coef,
                kl,
                target=self.args.kl_target,
                horizon=self.args.kl_horizon,
                episodes=episodes,
            )

    def _within_kl_limit(self, kl: float) -> bool:
        limit = self.args.kl_limit
        if limit is None or kl <= limit:
            return True
        warnings.warn(
            f"PPO stops before update {self.state.global_step + 1}: the policy is "
            f"{kl:.3g} nats a completion from the reference, beyond kl_limit={limit}. "
            f"A higher kl_coef (now {self.kl_coef:.3g}) keeps it closer.",
            stacklevel=2,
        )
        self.control.should_training_stop = True
        return False

    def _require_sane(self, step: dict[str, float]) -> None:
        loss, norm, limit = step["loss"], step["grad_norm"], self.args.loss_limit
        if abs(loss) <= limit and math.isfinite(norm):
            return
        checkpoint = last_checkpoint(self.args.output_dir)
        raise AlignlabError(
            f"In update {self.state.global_step + 1} the loss is {loss:.3g} and the "
            f"norm of its gradient {norm:.3g}; the last good checkpoint is "
            f"{checkpoint or 'none, as none was written'}.",
            f"Lower learning_rate (now {self.args.learning_rate}), or clip the rewards "
            "with cliprange_reward.",
        )

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """The Trainer's numbers with those of the updates since the last log: means,
        and the last one's of what only grows."""
        if "loss" in logs and self._rows:
            last = self._rows[-1]
            logs |= {name: _mean_of(self._rows, name) for name in last}
            logs |= {name: last[name] for name in ("episodes", "kl_coef")}
            self._rows.clear()
            self._print(self.completions)
        super().log(logs, *args, **kwargs)

    def _print(self, completions: list[dict]) -> None:
        if self.args.log_completions and self.is_world_process_zero():
            print_completions(
                completions[: self.args.log_completions], self.state.global_step
            )

    @lean_layers()
    def evaluate(
        self,
        eval_dataset: Sequence[dict] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Complete the evaluation prompts once, at the temperature of training and with
        the same random numbers every time.

        Returns:
            score, reward/NAME, kl, kl_exact, entropy, completion_length and eos_rate,
            as in the training rows, each under "eval_"; ``eval_completions`` holds the
            texts.
        """
        prompts = self.eval_dataset
        if eval_dataset is not None:
            model = self.policy
            prompts = Prompts(
                eval_dataset, self.processing_class, "eval_dataset", self.args, model
            )
        if prompts is None:
            raise AlignlabError("There is no eval_dataset.", "Pass one.")
        clock = _Clock()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = -(-len(prompts) // world)  # as many for each, so the last may repeat
        rows = [i % len(prompts) for i in range(rank * share, (rank + 1) * share)]
        size = self.args.per_device_eval_batch_size
        episodes = self._roll_out(rows, prompts, size, self.args.seed, EVALUATION)
        texts = self._score(episodes, rows, prompts)
        episodes = self._gathered(episodes).take(np.arange(len(prompts)))
        score = self._weighted(episodes.raw_rewards)
        self.eval_completions = self._table(rows, prompts, texts, episodes, score)
        clock.lap("evaluation")
        found = self._measured(episodes, score) | {"runtime": clock.total}
        metrics = {f"{metric_key_prefix}_{name}": x for name, x in found.items()}
        self._print(self.eval_completions)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    # --- Data, several processes, checkpoints

    def get_train_dataloader(self) -> DataLoader:
        """Nothing but the count of micro-batches: which prompts an update has depends
        on its number and the seed alone, so that a resumed run has nothing to skip."""
        updates = -(-len(self.prompts) // self.args.batch_size)
        count = updates * self.args.gradient_accumulation_steps
        return DataLoader(range(count), batch_size=1, collate_fn=lambda _: {})

    def num_examples(self, dataloader: DataLoader) -> int:
        return len(self.prompts)

    def get_total_train_batch_size(self, args: PPOConfig) -> int:
        return args.batch_size

    def _my_rows(self, update: int) -> list[int]:
        """The rows of the training prompts that this process completes."""
        rows = self.prompts.shuffled(update, self.args.batch_size, self.args.seed)
        first = self.accelerator.process_index * self.args.local_batch_size
        return rows[first : first + self.args.local_batch_size]

    @property
    def _sharded(self) -> bool:
        if self.is_deepspeed_enabled:
            return self.accelerator.state.deepspeed_plugin.zero_stage == 3
        return self.is_fsdp_enabled

    @property
    def _module(self) -> nn.Module:
        """What to call without gradient."""
        return self.model_wrapped if self._sharded else self.model

    def _gathered(self, episodes: Episodes) -> Episodes:
        """The episodes of all processes, in order."""
        if self.accelerator.num_processes == 1:
            return episodes
        whole = {}
        for name, tensor in episodes.tensors().items():
            kind = tensor.dtype
            if kind == torch.bool:
                tensor = tensor.int()  # padding would make it so on some processes only
            if tensor.ndim == 2 and name != "raw_rewards":
                tensor = self.accelerator.pad_across_processes(tensor, dim=1)
            whole[name] = self.accelerator.gather(tensor.contiguous()).to(kind)
        return Episodes(**whole)

    def _frozen(self, model: PreTrainedModel | None) -> nn.Module | None:
        """The reference, placed as the policy is, for passes without gradient."""
        if model is None:
            return None
        model.eval()
        if self.is_deepspeed_enabled:
            from trl.models.utils import prepare_deepspeed

            return prepare_deepspeed(model, self.accelerator)
        if self.is_fsdp_enabled:
            from trl.models.utils import prepare_fsdp

            return prepare_fsdp(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train; ``resume_from_checkpoint=True`` goes on from the last checkpoint in
        ``output_dir`` that was written to its end."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise AlignlabError(
                    f"There is no whole checkpoint in {self.args.output_dir}.",
                    "Train without resume_from_checkpoint.",
                )
        self._rows.clear()
        return super().train(resume_from_checkpoint, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        """The policy as the plain model it is; the value function beside it."""
        if not self.args.should_save:
            return
        from safetensors.torch import save_file

        folder = Path(output_dir or self.args.output_dir)
        state = self.model.state_dict() if state_dict is None else state_dict
        policy = {
            name.removeprefix("policy."): tensor
            for name, tensor in state.items()
            if name.startswith("policy.")
        }
        self.policy.save_pretrained(
            folder, state_dict=None if state_dict is None else policy
        )
        self.processing_class.save_pretrained(folder)
        value = {
            name: tensor.contiguous()
            for name, tensor in state.items()
            if not name.startswith("policy.")
        }
        save_file(value, folder / VALUE_FILE)
        torch.save(self.args, folder / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        from safetensors.torch import load_file

        super()._load_from_checkpoint(resume_from_checkpoint, self.policy)
        value = load_file(Path(resume_from_checkpoint) / VALUE_FILE)
        expected = {n for n in self.model.state_dict() if not n.startswith("policy.")}
        if expected != set(value):
            raise AlignlabError(
                f"Checkpoint {resume_from_checkpoint} has another value function.",
                "Resume with the value_model it was trained with.",
            )
        self.model.load_state_dict(value, strict=False)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


# --- Advantages ---------------------------------------------------------------------


def token_rewards(
    episodes: Episodes, score: Float[Tensor, "batch"], kl_coef: float, args: PPOConfig
) -> Float[Tensor, "batch time"]:
    """What each token earned: its completion's score if it is the last one, less what
    its KL costs where that is part of the reward.

    With exact KL a token pays for what it leads to, the KL at the next one; what it
    costs to choose among tokens here is differentiated directly, in the loss.
    """
    mask = episodes.mask
    rewards = torch.zeros_like(episodes.values)
    if args.kl_in == "reward" and args.kl_estimator == "k1":
        log_ratio = kl_estimate(episodes.old_log_probs, episodes.ref_log_probs, "k1")
        rewards = -kl_coef * log_ratio * mask
    if args.kl_in == "reward" and args.kl_estimator == "exact":
        following = F.pad(episodes.exact_kl[:, 1:], (0, 1))
        rewards = -kl_coef * args.gamma * following * mask
    last = F.one_hot(mask.sum(1) - 1, mask.shape[1])
    return rewards + score[:, None] * last


def set_advantages(
    episodes: Episodes, rewards: Float[Tensor, "batch time"], args: PPOConfig
) -> float:
    """Give the episodes advantages and returns; say what whitening divided advantages
    by, so that a KL in the loss can be priced alike."""
    mask, scale = episodes.mask, 1.0
    if args.whiten_rewards:
        scale *= _deviation(rewards, mask)
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, episodes.returns = generalized_advantage_estimate(
        rewards, episodes.values, mask, args.gamma, args.lam
    )
    if args.whiten_advantages:
        scale *= _deviation(advantages, mask)
        advantages = whiten(advantages, mask)
    episodes.advantages = advantages
    return scale


def _judged(episodes: Episodes, rewards: Tensor) -> dict[str, float]:
    """What was earned and what the value function had expected."""
    values, returns, mask = episodes.values, episodes.returns, episodes.mask
    return {
        "return": rewards.sum(1).mean().item(),
        "value": masked_mean(values, mask).item(),
        "explained_variance": explained_variance(values, returns, mask).item(),
    }


def _deviation(values: Tensor, mask: Tensor) -> float:
    """What :func:`whiten` divides by."""
    squares = (values - masked_mean(values, mask)).square()
    return math.sqrt(masked_mean(squares, mask).item() + EPSILON)


def _log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    return -F.cross_entropy(logits, tokens, reduction="none")  # (N,)


# --- Checks before training ---------------------------------------------------------


def _loaded(model, tokenizer):
    """``(model, tokenizer)``, from a folder or the Hub where only a name was given."""
    if isinstance(model, str | Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        model = AutoModelForCausalLM.from_pretrained(model)
    if tokenizer is None:
        raise AlignlabError("processing_class is None.", "Pass the model's tokenizer.")
    if tokenizer.pad_token_id is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no padding token.",
            "Set one: `tokenizer.pad_token = tokenizer.eos_token` will do.",
        )
    return model, tokenizer


def _with_adapters(model: PreTrainedModel, peft_config) -> nn.Module:
    from peft import get_peft_model

    if hasattr(model, "disable_adapter"):
        raise AlignlabError(
            "peft_config was passed with a model that has adapters already.",
            "Pass only one of them, or `model.merge_and_unload()`.",
        )
    return get_peft_model(model, peft_config)


def _copied_reward_model(sources) -> PreTrainedModel:
    models = [source for source in sources if isinstance(source, nn.Module)]
    if len(models) != 1:
        raise AlignlabError(
            f"value_model is 'reward model', and {len(models)} of reward_funcs are "
            "models that read the policy's tokens.",
            "Have exactly one of them, or pass the value model itself.",
        )
    return copy.deepcopy(models[0])


def _check_models(model, ref_model, value_model, sources, tokenizer) -> None:
    """Raise an ``AlignlabError`` where two models are one, or do not fit together."""
    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        raise AlignlabError(
            f"A {type(model).__name__} has no output layer over a vocabulary.",
            "Pass a causal language model.",
        )
    if ref_model is model:
        raise AlignlabError(
            "ref_model is the policy itself: it would move along with it, and KL to it "
            "would always be 0.",
            "Pass copy.deepcopy(model), or None for the policy as it comes in.",
        )
    judges = [source for source in sources if isinstance(source, nn.Module)]
    pairs = [source[0] for source in sources if isinstance(source, tuple)]
    if value_model is not None:
        if any(value_model is other for other in (model, *judges, *pairs)):
            raise AlignlabError(
                "value_model is also the policy or a reward model: training it would "
                "change that.",
                "Pass a copy of it.",
            )
        judges.append(value_model)
    for judge in (*judges, *pairs):
        if judge.config.num_labels != 1 or not hasattr(judge, "score"):
            raise AlignlabError(
                f"A {type(judge).__name__} with {judge.config.num_labels} labels gives "
                "no single number.",
                "Pass a sequence classifier with num_labels=1 and a `score` head.",
            )
    for other in (model, *judges, *([] if ref_model is None else [ref_model])):
        _check_vocabulary(model, other, tokenizer, same=other is ref_model)


def _check_vocabulary(model, other, tokenizer, same: bool) -> None:
    size, need = _vocabulary(other), _vocabulary(model) if same else len(tokenizer)
    if size < need or (same and size != need):
        raise AlignlabError(
            f"A {type(other).__name__} knows {size} tokens and has to read {need}.",
            "Pass models that read the policy's tokens, or a reward model together "
            "with its own tokenizer.",
        )


def _vocabulary(model) -> int:
    return model.config.get_text_config().vocab_size


def _stop_token(args: PPOConfig, tokenizer, vocabulary: int) -> int | None:
    stop = tokenizer.eos_token_id if args.stop_token_id is None else args.stop_token_id
    if stop is None and args.missing_eos_penalty is not None:
        raise AlignlabError(
            "missing_eos_penalty is set, and the tokenizer has no ending token.",
            "Set stop_token_id, or leave the penalty out.",
        )
    if stop is not None and not 0 <= stop < vocabulary:
        raise AlignlabError(
            f"stop_token_id is {stop}; the model knows {vocabulary} tokens.",
            "Pass one of them.",
        )
    return stop


# --- Small things -------------------------------------------------------------------


class _Clock:
    """Seconds since it was made, and of each lap."""

    def __init__(self):
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"seconds_{name}"] = now - self.last
        self.last = now

    @property
    def total(self) -> float:
        return time.perf_counter() - self.start


def _mean_of(rows: list[dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows if name in row]))


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in a folder that was written to its end, or None."""
    whole = [
        path.parent
        for path in Path(folder).glob("checkpoint-*/trainer_state.json")
        if path.parent.name.removeprefix("checkpoint-").isdigit() and _is_json(path)
    ]
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
    return None if newest is None else str(newest)


def _is_json(path: Path) -> bool:
    try:  # the Trainer writes this file last
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return False


def print_completions(completions: list[dict], step: int) -> None:
    """A table of prompts, completions and what was thought of them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Completions of update {step}", show_lines=True)
    for name in completions[0]:
        table.add_column(name)
    for row in completions:
        table.add_row(
            *(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values())
        )
    Console().print(table)
