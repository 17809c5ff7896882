"""PPO, RLOO and GRPO for language models on `transformers.Trainer`.

One step of the Trainer is one update, all of it in :meth:`PPOTrainer.training_step`.
Checkpoints, schedules, callbacks, peft and several devices are the Trainer's.
"""

import contextlib
import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
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
from alignlab.models.fit import (
    require_trainable,
    says_how_to_save_memory,
    tokenizer_size,
    vocabulary_size,
)
from alignlab.models.lean import lean_layers
from alignlab.models.sampler import keeps_cache, require_sampled_is_scored
from alignlab.models.text import completion_text, pad_token_id
from alignlab.objectives import adaptive_kl_coef, explained_variance, masked_mean
from alignlab.seeds import torch_seed
from alignlab.training.ppo.checkpoints import (
    last_checkpoint,
    load_value,
    save_policy_and_value,
)
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.distributed import Processes
from alignlab.training.ppo.inputs import (
    add_adapters,
    copy_reward_model,
    load_policy,
    require_compatible,
    stop_tokens,
)
from alignlab.training.ppo.policy_value import (
    PolicyAndValue,
    completion_logits,
    swapped,
)
from alignlab.training.ppo.reading import end_marks
from alignlab.training.ppo.reporting import (
    Clock,
    completion_rows,
    mean_of,
    print_completions,
    rollout_metrics,
)
from alignlab.training.ppo.rewards import (
    RewardSource,
    make_rewards,
    normalize,
    penalize_missing_eos,
    require_fit,
    reward_sources,
    token_rewards,
    weigh,
)
from alignlab.training.ppo.rollout import (
    Episodes,
    Prompts,
    add_predictions,
    at_temperature,
    sample_episodes,
)
from alignlab.training.ppo.update import ppo_update

REMEDY = (
    "Halve per_device_train_batch_size and double gradient_accumulation_steps, set "
    "local_rollout_forward_batch_size or gradient_checkpointing=True, lower "
    "max_completion_length, or train adapters (peft_config)."
)


class PPOTrainer(Trainer):
    """Train a causal language model, in place, to complete prompts for reward.

    ``trainer.policy`` is the plain model throughout. ``trainer.state.log_history`` has
    a row for each update, of the policy as it was when the update began:

    - score (mean and score_std), reward/NAME of each reward function, return (score
      minus the price of KL in the reward), completion_length (tokens), eos_rate;
    - kl (estimated by k1) and kl_exact (over the vocabulary), nats per completion to
      the reference, kl_coef; entropy, nats per token;
    - value (mean), explained_variance of the returns by the values (with "gae");
    - means over the update's minibatches: loss, policy_loss, value_loss, grad_norm,
      approx_kl (nats per token), clip_fraction, ratio; epochs made;
    - episodes so far, learning_rate, tokens_per_second (prompt and completion, over the
      whole update), seconds_rollout, seconds_reward, seconds_update.

    ``trainer.completions`` holds the last update's episodes as a list of dicts, and
    ``trainer.eval_completions`` those of the last evaluation.

    Args:
        model: a causal language model, or its folder or Hub id.
        reward_funcs: one or several of: a function ``(prompts, completions, **columns)
            -> list[float | None]``, also an async one, which gets the data set's
            columns that it has arguments for (and ``completion_ids``, if it has that
            one); a sequence classifier with one label that reads the policy's tokens; a
            pair of such a model, or its name, and its own tokenizer. Completions come
            as text without the tokens that end them, prompts as they are in the data.
            None says that a function does not apply: the score is the sum of the
            others, and reward/NAME the mean of the rest.
        args: a :class:`PPOConfig`.
        train_dataset: rows with a ``prompt``: plain text, or chat messages, which go
            through the chat template; an unfinished assistant turn at the end is
            continued. A list, a data set, a stream or a table of them.
        eval_dataset: the same, for :meth:`evaluate`; ``eval_strategy`` says when.
        processing_class: the tokenizer; by default that of the model's folder.
        ref_model: what KL is measured to; by default the policy as it comes in, its
            adapters included. Of a model with peft adapters only the weights to train
            are kept twice.
        value_model: by default a linear head on the policy's own trunk. Or a sequence
            classifier with one label, which has a trunk of its own; or "reward model"
            for a copy of the reward model.
        peft_config: put these adapters on the model and train only them.
        callbacks: as for `transformers.Trainer`.

    Raises:
        AlignlabError: here, for encoder-decoders, prompt and prefix tuning, models
            without anything to train, tokens without an embedding, rewards that lack a
            column, a position or a token id, and prompts without room; by ``train``, if
            the policy samples tokens with other probabilities than it scores them; and
            in training, if a reward is not finite or the loss explodes.
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
        model, tokenizer = load_policy(model, processing_class, args.dtype)
        sources = reward_sources(reward_funcs)
        if value_model is not None and not args.has_values:
            raise AlignlabError(
                f"value_model is given, and advantages={args.advantages!r} ask no "
                "value function.",
                "Leave it out, or set advantages='gae'.",
            )
        if value_model == "reward model":
            value_model = copy_reward_model(sources)
        require_compatible(model, ref_model, value_model, sources, tokenizer)
        size = vocabulary_size(model)
        ids = tokenizer_size(tokenizer)
        self.vocabulary = ids if ids < size else None  # no id beyond is ever sampled
        self.stop_token_ids = stop_tokens(args, model, tokenizer, min(ids, size))
        self.prompts = Prompts(train_dataset, tokenizer, model, args, "train_dataset")
        if eval_dataset is not None:
            eval_dataset = Prompts(eval_dataset, tokenizer, model, args, "eval_dataset")
        others = dict(ref_model=ref_model, value_model=value_model)
        self.rewards = make_rewards(sources, tokenizer, args, self.prompts, **others)
        if eval_dataset is not None:
            require_fit(self.rewards, eval_dataset, args, "eval_dataset", **others)
        self.reward_names = [reward.name for reward in self.rewards]

        use_cache = getattr(model.config, "use_cache", None)
        if peft_config is not None:
            model = add_adapters(model, peft_config)
        require_trainable(model)
        self.policy = model
        has_adapters = hasattr(model, "peft_config")
        if ref_model is None and not has_adapters:
            ref_model = copy.deepcopy(model)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # there are none
        folder = Path(args.output_dir)
        unwanted_folder = args.save_strategy == "no" and not folder.exists()
        super().__init__(
            model=PolicyAndValue(
                model, value_model, args.detach_value, args.has_values, self.vocabulary
            ),
            args=args,
            train_dataset=self.prompts,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        if unwanted_folder:  # the Trainer makes it even if nothing will be saved
            with contextlib.suppress(OSError):  # in use by another run, or gone
                folder.rmdir()
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)  # thirty numbers an update
        if use_cache is not None:
            model.config.use_cache = use_cache  # the Trainer turns it off for good
        if has_adapters and args.gradient_checkpointing:
            model.enable_input_require_grads()
        self.processes = Processes(self.accelerator, size)
        if ref_model is None and self.processes.sharded:
            ref_model = copy.deepcopy(model)
        self.ref_model = self.processes.prepare_frozen(ref_model)
        if ref_model is None:  # the reference is the policy with these weights
            self._trained = [p for p in model.parameters() if p.requires_grad]
            self._initial = [p.detach().clone() for p in self._trained]
        for reward in self.rewards:
            if reward.model is not None:
                reward.model.to(args.device)
        self.completions: list[dict] = []
        self.eval_completions: list[dict] = []
        self._unlogged: list[dict] = []  # rows of the updates since the last log

    # --- One update

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """One update. The Trainer's own optimizer step that follows finds no gradient,
        and changes nothing."""
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)  # see get_train_dataloader
        args, update, clock = self.args, self.state.global_step, Clock()
        k = args.completions_per_prompt
        with lean_layers(*self._models()), says_how_to_save_memory(REMEDY):
            rows = self.prompts.draw(update, args.batch_size // k, args.seed)
            rows = [row for row in rows for _ in range(k)]
            size = args.local_rollout_forward_batch_size
            episodes, scores, metrics, self.completions = self._sample_and_score(
                self.prompts,
                rows,
                size,
                ("PPO rollout", update),
                clock,
                keep_predictions=update > 0 and self._samples_exactly(),
            )
            scores = self._adjust_scores(scores, episodes)
            episodes.rewards = token_rewards(episodes, scores, self.kl_coef, args)
            steps = []
            if self._is_within_kl_limit(metrics["kl_exact"]):
                steps = ppo_update(
                    model,
                    self.optimizer,
                    episodes,
                    args,
                    update,
                    self.kl_coef,
                    self._ref_logits,
                    self.processes,
                )
            clock.lap("update")
        metrics |= self._update_metrics(episodes, steps)
        metrics["tokens_per_second"] = episodes.widths.sum().item() / clock.total
        self._unlogged.append(metrics | clock.laps)
        self._adapt_kl_coef(metrics["kl_exact"], len(episodes))
        return torch.tensor(metrics.get("loss", 0.0), device=args.device)

    def _sample_and_score(
        self,
        prompts: Prompts,
        rows: list[int],
        group_size: int | None,
        draw: tuple[str | int, ...],
        clock: Clock,
        may_repeat: bool = False,
        keep_predictions: bool = False,
    ) -> tuple[Episodes, Float[Tensor, "batch"], dict[str, float], list[dict]]:
        """Complete these rows of the prompts and score the completions, each process
        its share: all episodes and scores, their metrics, and this process's
        completions as dicts.

        Args:
            may_repeat: the number of rows need not be a multiple of that of processes.
            keep_predictions: see :func:`sample_episodes`. Without, a policy equal to
                the reference has a KL of exactly 0, as both compute the same.
        """
        own_rows, first = self.processes.share(rows)
        episodes = self._roll_out(
            [prompts.ids[i] for i in own_rows],
            group_size,
            draw,
            first,
            keep_predictions,
        )
        clock.lap("rollout")
        texts, function_rewards = self._score(episodes, own_rows, prompts)
        episodes = self.processes.gather(episodes)
        function_rewards = self.processes.gather_tensor(function_rewards)
        if may_repeat:
            every = np.arange(len(rows))
            episodes, function_rewards = episodes.take(every), function_rewards[every]
        clock.lap("reward")
        k = 1 if may_repeat else self.args.completions_per_prompt
        scores = weigh(function_rewards, self.args.reward_weights, k)
        described = episodes, scores, function_rewards, self.reward_names
        metrics = rollout_metrics(*described)
        own_prompts = [prompts.given[i] for i in own_rows]
        completions = completion_rows(own_prompts, texts, *described, first)
        return episodes, scores, metrics, completions

    @torch.no_grad()
    def _roll_out(
        self,
        prompts: list[list[int]],
        group_size: int | None,
        draw: tuple[str | int, ...],
        first: int,
        keep_predictions: bool,
    ) -> Episodes:
        """Complete the prompts, ``group_size`` at once, and add what policy, value
        function and reference say about each token."""
        args, model = self.args, self._rollout_module()
        model.eval()
        sampling_model = self.policy  # which the sampler lets generate
        if keeps_cache(self.policy):
            sampling_model = self.processes.sampling_model(model, self.policy)
        size = group_size or len(prompts)
        groups = []
        for start in range(0, len(prompts), size):
            generator = torch.Generator(args.device)
            generator.manual_seed(torch_seed(args.seed, *draw, first + start))
            episodes = sample_episodes(
                sampling_model,
                prompts[start : start + size],
                max_new_tokens=args.max_completion_length,
                stop_token_ids=self.stop_token_ids,
                pad_token_id=pad_token_id(self.processing_class),
                generator=generator,
                temperature=args.temperature,
                vocabulary=self.vocabulary,
                stop_early=not self.processes.sharded,
                keep_predictions=keep_predictions,
            )
            parts = self.processes.split(episodes, np.arange(len(episodes)))
            batches = [episodes.take(part) for part in parts]
            for batch in batches:
                add_predictions(batch, model, self._ref_logits, args.temperature)
            in_order = np.argsort(np.concatenate(parts))
            groups.append(Episodes.join(batches).take(in_order))
        return Episodes.join(groups)

    def _samples_exactly(self) -> bool:
        """Whether logits in sampling are at hand, and those of a pass over the whole
        episode to float32's rounding. On a GPU that pass is cheap, and memory for
        logits scarce."""
        plain = self.accelerator.mixed_precision == "no" and not self.processes.sharded
        on_cpu = self.args.device.type == "cpu"
        exact = plain and on_cpu and self.policy.dtype == torch.float32
        return exact and keeps_cache(self.policy)

    @torch.no_grad()
    def _ref_logits(self, episodes: Episodes) -> Float[Tensor, "tokens vocab"]:
        inputs = episodes.input_ids, episodes.prediction_mask
        if self.ref_model is None:
            with swapped(self._trained, self._initial):
                logits, _ = self._rollout_module()(*inputs)
        else:
            logits, _ = completion_logits(self.ref_model, *inputs, self.vocabulary)
        return at_temperature(logits, self.args.temperature)

    def _score(
        self, episodes: Episodes, rows: list[int], prompts: Prompts
    ) -> tuple[list[str], Float[Tensor, "batch functions"]]:
        """The completions' texts, and what each reward function gives them."""
        completion_ids = episodes.completion_ids()
        tokenizer, ended = self.processing_class, episodes.ended.tolist()
        marks = end_marks(tokenizer)  # stop tokens that are no part of the text
        texts = [
            completion_text(
                tokenizer, ids[: -1 if end and ids[-1] in marks else None], self.policy
            )
            for ids, end in zip(completion_ids, ended, strict=True)
        ]
        batch = {name: [c[i] for i in rows] for name, c in prompts.columns.items()}
        batch["prompts"] = [prompts.given[i] for i in rows]
        batch["completions"] = texts
        batch["chat_template_kwargs"] = [prompts.template_kwargs[i] for i in rows]
        batch["prompt_ids"] = [prompts.ids[i] for i in rows]
        batch["completion_ids"] = completion_ids
        batch["completion_ended"] = ended
        columns = [reward(batch) for reward in self.rewards]
        return texts, torch.tensor(columns, device=self.args.device).T

    def _adjust_scores(
        self, scores: Float[Tensor, "batch"], episodes: Episodes
    ) -> Float[Tensor, "batch"]:
        """Scores as they are optimised: normalised, minus the penalty for no EOS."""
        state = self._run_state
        scores, state["scores"] = normalize(
            scores, state["scores"], self.args.normalize_rewards
        )
        penalty = self.args.missing_eos_penalty
        return penalize_missing_eos(scores, episodes.ended, penalty)

    def _update_metrics(
        self, episodes: Episodes, steps: list[dict[str, float]]
    ) -> dict[str, float]:
        values, mask = episodes.values, episodes.mask
        metrics = {
            "return": episodes.rewards.sum(1).mean().item(),
            "epochs": len(steps) // self.args.num_mini_batches,
            "episodes": (self.state.global_step + 1) * self.args.batch_size,
            "kl_coef": self.kl_coef,
        }
        if self.args.has_values:
            metrics["value"] = masked_mean(values, mask).item()
        if steps and self.args.has_values:
            explained = explained_variance(values, episodes.returns, mask)
            metrics["explained_variance"] = explained.item()
        if steps:
            metrics |= {name: mean_of(steps, name) for name in steps[0]}
        return metrics

    def _models(self) -> list[nn.Module]:
        """Every model that computes in an update."""
        judges = [reward.model for reward in self.rewards]
        models = [self.model, self.ref_model, *judges]
        return [model for model in models if model is not None]

    def _rollout_module(self) -> nn.Module:
        """What to call without gradient."""
        return self.model_wrapped if self.processes.sharded else self.model

    def _require_sampled_is_scored(self) -> None:
        """Try the model on a few prompts, short and long. Not where processes share its
        weights: they are spread only when training begins."""
        if self.processes.sharded:
            return
        ids = sorted(self.prompts.ids, key=len)
        few = [ids[0], ids[len(ids) // 2], ids[-1]]
        require_sampled_is_scored(
            self.policy,
            few,
            pad_token_id(self.processing_class),
            new_tokens=min(8, self.args.max_completion_length),
        )

    # --- Between updates

    @property
    def kl_coef(self) -> float:
        """The price of a nat of KL at present; it is fixed unless there is a
        kl_target."""
        return self._run_state["kl_coef"]

    @property
    def _run_state(self) -> dict:
        """What changes from update to update beside parameters and optimizer. The
        Trainer saves and restores it with its checkpoints."""
        start = {"kl_coef": self.args.kl_coef, "scores": [0, 0.0, 0.0]}
        return self.state.stateful_callbacks.setdefault("PPOTrainer", start)

    def _adapt_kl_coef(self, kl: float, episodes: int) -> None:
        if self.args.kl_target is not None:
            self._run_state["kl_coef"] = adaptive_kl_coef(
                self.kl_coef,
                kl,
                target=self.args.kl_target,
                horizon=self.args.kl_horizon,
                episodes=episodes,
            )

    def _is_within_kl_limit(self, kl: float) -> bool:
        """False stops the run, with a warning."""
        limit = self.args.kl_limit
        if limit is None or kl <= limit:
            return True
        warnings.warn(
            f"PPO stops before update {self.state.global_step + 1}: the policy is "
            f"{kl:.3g} nats per completion from the reference, beyond "
            f"kl_limit={limit}. A higher kl_coef (now {self.kl_coef:.3g}) keeps it "
            "closer.",
            stacklevel=2,
        )
        self.control.should_training_stop = True
        return False

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log the Trainer's numbers and, as means, those of the updates since the last
        log; of what accumulates, the last."""
        if "loss" in logs and self._unlogged:
            last = self._unlogged[-1]
            logs |= {name: mean_of(self._unlogged, name) for name in last}
            logs |= {name: last[name] for name in ("episodes", "kl_coef")}
            self._unlogged.clear()
            self._print(self.completions)
        super().log(logs, *args, **kwargs)

    def _print(self, completions: list[dict]) -> None:
        if self.args.log_completions and self.is_world_process_zero():
            print_completions(
                completions[: self.args.log_completions], self.state.global_step
            )

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
            as in the training rows, each with the prefix ``eval_``;
            ``eval_completions`` holds the texts.
        """
        prompts, args, clock = self.eval_dataset, self.args, Clock()
        if eval_dataset is not None:
            prompts = Prompts(
                eval_dataset, self.processing_class, self.policy, args, "eval_dataset"
            )
            require_fit(self.rewards, prompts, args, "eval_dataset")
        if prompts is None:
            raise AlignlabError("There is no eval_dataset.", "Pass one.")
        with lean_layers(*self._models()), says_how_to_save_memory(REMEDY):
            _, _, metrics, self.eval_completions = self._sample_and_score(
                prompts,
                list(range(len(prompts))),
                args.per_device_eval_batch_size,
                ("PPO evaluation",),
                clock,
                may_repeat=True,
            )
        metrics["runtime"] = clock.total
        metrics = {f"{metric_key_prefix}_{name}": x for name, x in metrics.items()}
        self._print(self.eval_completions)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            args, self.state, self.control, metrics
        )
        return metrics

    # --- What the Trainer asks for: data and checkpoints

    def get_train_dataloader(self) -> DataLoader:
        """Only counts micro-batches: an update's prompts depend on its number and the
        seed alone, so that a resumed run has nothing to skip."""
        prompts = self.args.batch_size // self.args.completions_per_prompt
        updates = -(-len(self.prompts) // prompts)
        count = updates * self.args.gradient_accumulation_steps
        return DataLoader(range(count), batch_size=1, collate_fn=lambda _: {})

    def num_examples(self, dataloader: DataLoader) -> int:
        return len(self.prompts)

    def get_total_train_batch_size(self, args: PPOConfig) -> int:
        return args.batch_size

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train. ``resume_from_checkpoint=True`` continues from the last complete
        checkpoint in ``output_dir``."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise AlignlabError(
                    f"There is no complete checkpoint in {self.args.output_dir}.",
                    "Train without resume_from_checkpoint.",
                )
        self._require_sampled_is_scored()
        self._unlogged.clear()
        return super().train(resume_from_checkpoint, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        save_policy_and_value(self.model, folder, state_dict)
        self.processing_class.save_pretrained(folder)
        torch.save(self.args, folder / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        super()._load_from_checkpoint(resume_from_checkpoint, self.policy)
        load_value(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
