"""What a run is going to train, said before it starts."""

from alignlab.training.recipes.config import Recipe
from alignlab.training.recipes.memory import GB, Load, Shape, in_words

SMALLER = (
    "Halve args.per_device_train_batch_size and double "
    "args.gradient_accumulation_steps (the same batch), set "
    "args.gradient_checkpointing: true, shorten the sequences, or train adapters: "
    "lora: {r: 16}."
)


def size_of(recipe: Recipe, trainer) -> tuple[Shape, Load]:
    """What memory a run will take depends on; see :func:`memory.estimate`."""
    args, policy = trainer.args, getattr(trainer, "policy", trainer.model)
    config = policy.config.get_text_config()
    parameters = list(policy.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    hidden = config.hidden_size
    shape = Shape(
        parameters=policy.num_parameters(),
        trained=trained,
        embeddings=_embeddings(policy),
        layers=config.num_hidden_layers,
        hidden=hidden,
        intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,
        vocabulary=config.vocab_size,
    )
    reference = getattr(trainer, "ref_model", None)
    judges = [reward.model for reward in getattr(trainer, "rewards", [])]
    value = getattr(trainer.model, "value_model", None)
    length = longest(trainer)
    rows = args.per_device_train_batch_size * ROWS.get(recipe.stage, 1)
    plain = {"no": recipe.dtype, "fp16": "float16", "bf16": "bfloat16"}
    sharding = trainer.accelerator.distributed_type.name
    zero = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return shape, Load(
        weights=_precision(recipe),
        computes=plain[args.mixed_precision],
        rows=rows,
        length=length,
        logits=_logits(recipe, args, rows, length),
        checkpointing=args.gradient_checkpointing,
        frozen=0 if reference is None else parameters_of(reference),
        judges=sum(parameters_of(judge) for judge in judges if judge is not None),
        valued=0 if value is None else parameters_of(value),
        shards=args.world_size if sharding in ("FSDP", "DEEPSPEED") else 1,
        shards_weights=zero is None or zero.zero_stage == 3,
    )


def _precision(recipe: Recipe) -> str:
    bits = recipe.quantization
    if not bits:
        return recipe.dtype
    return "4bit" if bits.get("load_in_4bit") else "8bit"


ROWS = {"reward": 2, "dpo": 2, "orpo": 2, "kto": 2}  # sequences of one example


def _logits(recipe: Recipe, args, rows: int, length: int) -> int:
    """Tokens whose logits are held at once. Reward models have none; TRL computes those
    of DPO and KTO in parts."""
    if recipe.stage in ("reward", "dpo", "kto"):
        return 0
    if recipe.stage == "ppo":
        sampled = args.local_rollout_forward_batch_size or args.local_batch_size
        return max(rows, sampled) * args.max_completion_length
    return 0 if getattr(args, "loss_type", "") == "chunked_nll" else rows * length


def _embeddings(policy) -> int:
    layers = [policy.get_input_embeddings(), policy.get_output_embeddings()]
    weights = {id(x.weight): x.weight.numel() for x in layers if x is not None}
    return sum(weights.values())


def parameters_of(model) -> int:
    """Those of a model, also within what several processes wrap it in."""
    return sum(parameter.numel() for parameter in model.parameters())


def longest(trainer, rows: int = 1000) -> int:
    """Tokens of the longest of the first rows that are trained on."""
    if hasattr(trainer, "prompts"):
        prompts = trainer.prompts.ids[:rows]
        return max(map(len, prompts)) + trainer.args.max_completion_length
    data = trainer.train_dataset
    few = data.select(range(min(rows, len(data)))).to_dict()
    ids = {name: list(map(len, few[name])) for name in few if name.endswith("ids")}
    prompts = ids.pop("prompt_ids", None) or [0] * len(next(iter(ids.values())))
    ids.pop("prompt_input_ids", None)  # of ORPO, whose other columns have the prompt
    whole = [p + max(rest) for p, *rest in zip(prompts, *ids.values(), strict=True)]
    return min(max(whole), getattr(trainer.args, "max_length", None) or max(whole))


HOW = {"MULTI_CPU": "DDP", "MULTI_GPU": "DDP"}  # accelerate's names, and the usual one


def say(recipe: Recipe, trainer, parts: dict, notes: list[str]) -> None:
    """Print what will be trained, on what, and about how much memory that takes."""
    args, policy = trainer.args, getattr(trainer, "policy", trainer.model)
    shape, load = size_of(recipe, trainer)
    share = shape.trained / shape.parameters
    batch = [args.per_device_train_batch_size, args.gradient_accumulation_steps]
    batch += [args.num_mini_batches] if recipe.stage == "ppo" else []
    batch += [args.world_size]
    product = 1
    for factor in batch:
        product *= factor
    precision = load.weights + (
        "" if load.computes == load.weights else f", computes in {load.computes}"
    )
    kind = trainer.accelerator.distributed_type.name
    how = "" if kind == "NO" else f" ({HOW.get(kind, kind)})"
    count = f"{args.world_size} process" + ("es" if args.world_size > 1 else "")
    plain = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    lines = [
        f"{recipe.stage}: {recipe.model}, a {type(plain).__name__} with "
        f"{shape.parameters:,} parameters, of which {shape.trained:,} ({share:.2%}) "
        "are trained",
        f"device: {args.device}, {count}{how}, {precision}",
        f"batch: {' x '.join(map(str, batch))} = {product}; sequences of up to "
        f"{load.length} tokens; {len(trainer.train_dataset)} rows",
        f"memory on each device, about {in_words(parts)}",
    ]
    free = _free_memory(args.device.type)
    if sum(parts.values()) > free:
        lines.append(f"WARNING: only {free / GB:.2f} GB are free. {SMALLER}")
    print("\n".join(lines + notes), flush=True)


def _free_memory(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available
