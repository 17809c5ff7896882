"""A recipe: one YAML file that says what to train, from what, and how.

What is not known is an error that suggests the nearest name, at every level.
"""

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from alignlab.errors import AlignlabError, did_you_mean

STAGES = ("sft", "reward", "dpo", "kto", "orpo", "ppo")
DATA = ("source", "split", "path", "columns", "limit", "ranking", "decided_by")
ONLY_FOR = {  # keys that other stages have no use for
    "ref_model": ("dpo", "kto", "ppo"),
    "reward_funcs": ("ppo",),
    "value_model": ("ppo",),
}
AT_THE_TOP = ("output_dir", "seed")  # not among the trainer's own `args`
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Recipe:
    """What one run of `alignlab train` trains.

    Attributes:
        stage: one of ``STAGES``.
        model: what to train: a size that ships ("1m", "300k"), "smollm2", a folder, or
            a Hub id. A folder of adapters of `peft` is trained further.
        data: arguments of :func:`alignlab.data.load`; in YAML a mere name will do.
        output_dir: gets checkpoints, the model, and its card.
        args: fields of the trainer's own config: SFTConfig, RewardConfig, DPOConfig,
            KTOConfig and ORPOConfig of TRL, and :class:`alignlab.ppo.PPOConfig`.
        eval_data: as ``data``, to evaluate on; ``args.eval_strategy`` says when.
        lora: fields of `peft.LoraConfig`: train adapters in place of the weights.
        quantization: fields of `transformers.BitsAndBytesConfig`: keep the base in few
            bits (QLoRA; needs ``lora``, a GPU and bitsandbytes).
        dtype: precision of the weights. In less than float32 small steps of training
            get lost; with ``lora`` the weights stay as they are, and it saves memory.
        attn_implementation: "sdpa", "flash_attention_2", "eager"; by default what
            `transformers` prefers.
        pad_token: what to pad with, where the tokenizer has no token of its own for it.
        ref_model: what KL is measured to; by default ``model`` as it was.
        reward_funcs: for PPO: reward models (folders, Hub ids) and functions
            ("file.py:name", "package.module:name").
        value_model: for PPO: "reward model" starts one from a copy of it; by default a
            head on the policy.
        device: "cpu", "cuda" or "mps"; training on another one is refused. Without it,
            the best at hand is taken.
        num_processes: so many share the batch; training with another number is refused.
        push_to_hub: a Hub id to upload the finished model to.
        seed: of everything that is drawn.
        where: the file, for messages.
    """

    stage: str
    model: str
    data: dict
    output_dir: str
    args: dict = field(default_factory=dict)
    eval_data: dict | None = None
    lora: dict | None = None
    quantization: dict | None = None
    dtype: str = "float32"
    attn_implementation: str | None = None
    pad_token: str | None = None
    ref_model: str | None = None
    reward_funcs: list[str] = field(default_factory=list)
    value_model: str | None = None
    device: str | None = None
    num_processes: int | None = None
    push_to_hub: str | None = None
    seed: int = 0
    where: str = "the recipe"


KEYS = tuple(f.name for f in fields(Recipe) if f.name not in ("stage", "where"))
REQUIRED = ("model", "data", "output_dir")


def read_recipe(stage: str, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file.

    Args:
        overrides: "key=value", with dots into what is nested: "args.beta=0.2"; values
            are YAML.

    Raises:
        AlignlabError: if the file cannot be read, a key is unknown or missing or does
            not go with the stage, or a value has the wrong type.
    """
    values = _read_yaml(Path(path))
    for override in overrides:
        _override(values, override)
    return make_recipe(stage, values, str(path))


def make_recipe(stage: str, values: Mapping, where: str = "the recipe") -> Recipe:
    """The recipe with these keys; see :func:`read_recipe`."""
    _require_keys(values, KEYS, where)
    for key in REQUIRED:
        if values.get(key) is None:
            raise AlignlabError(f"{where} has no `{key}`.", f"Add one: {EXAMPLES[key]}")
    for key, stages in ONLY_FOR.items():
        if values.get(key) is not None and stage not in stages:
            raise AlignlabError(
                f"{where} has `{key}`, which {stage} does not use.",
                f"Leave it out; it is for {', '.join(stages)}.",
            )
    values = {key: value for key, value in values.items() if value is not None}
    for key in ("data", "eval_data"):
        if key in values:
            values[key] = _data(values[key], f"{where}: {key}")
    for key, hint in typing.get_type_hints(Recipe).items():
        if key in values:
            require_type(values[key], hint, f"{where}: {key}")
    recipe = Recipe(stage, **values, where=where)
    _require_consistent(recipe)
    return recipe


EXAMPLES = {
    "model": "`model: 1m`, `model: smollm2`, a folder or a Hub id.",
    "data": "`data: preferences.jsonl`, a catalogue name or a Hub id.",
    "output_dir": "`output_dir: out/my-model`.",
}


def _data(value: object, where: str) -> dict:
    if isinstance(value, str):
        return {"source": value}
    require_type(value, dict, where)
    _require_keys(value, DATA, where)
    if "source" not in value:
        raise AlignlabError(f"{where} has no `source`.", f"Add one: {EXAMPLES['data']}")
    return dict(value)


def _require_consistent(recipe: Recipe) -> None:
    where = recipe.where
    if recipe.quantization is not None and recipe.lora is None:
        raise AlignlabError(
            f"{where} has `quantization` and no `lora`: weights in few bits cannot be "
            "trained.",
            "Add `lora: {r: 16}`, or leave quantization out.",
        )
    if recipe.stage == "ppo" and not recipe.reward_funcs:
        raise AlignlabError(
            f"{where} has no `reward_funcs`, and PPO needs a reward.",
            "Add a reward model's folder or a function: `reward_funcs: "
            "[recipes/rewards.py:brevity]`.",
        )
    if recipe.device not in (None, *DEVICES):
        raise AlignlabError(
            f"{where}: device is {recipe.device!r}.",
            did_you_mean(recipe.device, DEVICES),
        )
    if recipe.num_processes is not None and recipe.num_processes < 1:
        raise AlignlabError(
            f"{where}: num_processes is {recipe.num_processes}.", "Set 1 or more."
        )


def _require_keys(values: object, known: Iterable[str], where: str) -> None:
    require_type(values, dict, where)
    for key in values:
        if key not in known:
            raise AlignlabError(
                f"{where} has an unknown key {key!r}.", did_you_mean(key, known)
            )


# --- The configs of other libraries: TRL's, peft's, bitsandbytes' ---------------------


def make_config(kind: type, values: Mapping, where: str, **fixed):
    """A config dataclass of another library with these values.

    Args:
        values: from the recipe, each a field of the dataclass, of its type.
        where: how the messages call them: "args", "lora".
        fixed: further fields, which the recipe states elsewhere.

    Raises:
        AlignlabError: if a field is unknown or stated elsewhere, has the wrong type, or
            the library refuses the values.
    """
    known = [item.name for item in fields(kind) if item.init and item.name not in fixed]
    for name in values:
        if name in fixed:
            raise AlignlabError(
                f"{where} has {name!r}.",
                f"Say it at the top of the recipe{_OF.get(name, '')}.",
            )
        if name not in known:
            raise AlignlabError(
                f"{where} has an unknown key {name!r}; {kind.__name__} has no such "
                "field.",
                did_you_mean_one(name, known),
            )
    hints = _type_hints(kind)
    choices = {item.name: item.metadata.get("choices") for item in fields(kind)}
    for name, value in values.items():
        require_type(value, hints.get(name, object), f"{where}.{name}")
        if choices[name] and value not in choices[name]:
            raise AlignlabError(
                f"{where}.{name} is {value!r}.", did_you_mean(value, choices[name])
            )
    try:
        return kind(**fixed, **values)
    except AlignlabError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise AlignlabError(
            f"{where} was refused by {kind.__name__}: {first_line(error)}",
            _remedy(error, where),
        ) from error


_OF = {
    "use_cpu": ": `device: cpu`",
    "push_to_hub": ": `push_to_hub: owner/name`",
    "hub_model_id": ": `push_to_hub: owner/name`",
    "model_init_kwargs": ": `dtype`, `attn_implementation`",
}


def did_you_mean_one(name: str, known: Sequence[str]) -> str:
    """As :func:`did_you_mean`, without a list of the hundred other fields."""
    start = did_you_mean(name, known)
    if start.startswith("Did"):
        return start.partition(" Known:")[0]
    return "See docs/training.md for where its fields are described."


def _type_hints(kind: type) -> dict:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):  # hints that need what is not installed
        return {}


def _remedy(error: Exception, where: str) -> str:
    if "bf16" in str(error):
        return (
            f"This device has no bfloat16: set `{where}.bf16: false`, on a GPU such as "
            "the T4 with `fp16: true`."
        )
    return f"Correct it under `{where}:` in the recipe."


def first_line(error: Exception) -> str:
    """What an error of another library says, in a line that ends in a full stop."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return lines[0].rstrip(".:") + "."


def require_type(value: object, hint: object, where: str) -> None:
    """Refuse a value that is not of the type; hints that say more are not looked into.

    Raises:
        AlignlabError: naming both.
    """
    allowed = _plain_types(hint)
    if not allowed or isinstance(value, allowed) and not _is_odd(value, allowed):
        return
    kinds = [kind for kind in allowed if kind is not int or float not in allowed]
    names = " or ".join(NAMES[kind] for kind in kinds)
    raise AlignlabError(f"{where} is {value!r}.", f"Set it to {names}.")


NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a mapping of keys to values",
    type(None): "null",
}


def _plain_types(hint: object) -> tuple[type, ...]:
    """The types that a hint allows; none where it is not made of plain ones."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [_plain_types(part) for part in typing.get_args(hint)]
        return tuple(kind for part in parts for kind in part) if all(parts) else ()
    origin = typing.get_origin(hint) or hint
    if origin is float:
        return (float, int)
    return (origin,) if origin in NAMES else ()


def _is_odd(value: object, allowed: tuple[type, ...]) -> bool:
    """True and False are whole numbers to Python, and to nobody else."""
    return isinstance(value, bool) and bool not in allowed


# --- YAML -----------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-4 is a number and `no` a word, which in YAML 1.1 they
    are not, and no key is there twice."""

    yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in kinds if not tag.endswith(":bool")]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(true|True|TRUE|false|False|FALSE)$"),
    list("tTfF"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise AlignlabError(
            f"Cannot read the recipe {path}: {error.strerror}.",
            "Give --config the path of a YAML file, such as recipes/1m/sft.yaml.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise AlignlabError(
            f"{path} is no YAML: {problem}.", "Mend the file."
        ) from error
    if not isinstance(values, dict):
        raise AlignlabError(
            f"{path} holds no keys.", "Write `model:`, `data:` and `output_dir:`."
        )
    return values


def _override(values: dict, override: str) -> None:
    """Set "args.beta=0.2" in the nested dicts."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise AlignlabError(
            f"--set {override!r} is not KEY=VALUE.", "Such as --set args.beta=0.2"
        )
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise AlignlabError(f"--set {override!r}: no YAML.", "Quote it.") from error
    for number, key in enumerate(keys[:-1], 1):
        if values.get(key) is None:
            values[key] = {}
        if key == "data" and isinstance(values[key], str):
            values[key] = {"source": values[key]}
        values = values[key]
        if not isinstance(values, dict):
            raise AlignlabError(
                f"--set {override!r}: {'.'.join(keys[:number])} is {values!r} and has "
                "nothing inside.",
                "Leave out what follows the dot.",
            )
    values[keys[-1]] = value
