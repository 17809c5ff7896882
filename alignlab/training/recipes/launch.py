"""Whether a run was started as it was asked for.

`accelerate` falls back in silence: with `--cpu` and without a configuration file it
starts one process however many are asked for, and FSDP on CPUs becomes plain DDP.
"""

import os
from collections.abc import Mapping, Sequence

from alignlab.errors import AlignlabError

ON_CPUS = "accelerate launch --config_file recipes/ddp_cpu.yaml -m alignlab.train ..."


def require_started_as_asked(
    world_size: int,
    on_cpu: bool,
    gpus: int = 0,
    in_recipe: int | None = None,
    launcher: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Refuse another number of processes than was asked for, and FSDP that is none.

    Args:
        world_size: processes that share the batch.
        on_cpu: whether they compute on CPUs.
        gpus: that this process sees.
        in_recipe: the recipe's num_processes.
        launcher: arguments of the `accelerate launch` that started this process; None
            if there was none.

    Raises:
        AlignlabError: with the command that does what was asked for.
    """
    asked = None if launcher is None else processes_asked_for(launcher)
    if asked is not None and asked != world_size:
        why = "with --cpu it always starts one" if "--cpu" in launcher else "it did not"
        raise AlignlabError(
            f"accelerate was asked for {asked} processes, and started {world_size}: "
            f"{why}.",
            f"Leave --cpu out and name a configuration: {ON_CPUS}",
        )
    if environment.get("ACCELERATE_USE_FSDP", "").lower() == "true" and on_cpu:
        raise AlignlabError(
            "FSDP was asked for, and this run is on CPUs, where accelerate shards "
            "nothing: every process would hold the whole model.",
            f"Run it on GPUs, or ask for DDP: {ON_CPUS}",
        )
    if gpus > 1 and world_size == 1:
        raise AlignlabError(
            f"One process sees {gpus} GPUs, and would use one of them.",
            "Start one process for each: accelerate launch --config_file "
            f"recipes/ddp.yaml --num_processes {gpus} -m alignlab.train ... or show it "
            "one: CUDA_VISIBLE_DEVICES=0.",
        )
    if in_recipe is not None and in_recipe != world_size:
        raise AlignlabError(
            f"The recipe is for {in_recipe} processes, and there "
            f"{'is' if world_size == 1 else 'are'} {world_size}.",
            f"accelerate launch --num_processes {in_recipe} --config_file ... -m "
            "alignlab.train ..., or --set num_processes="
            f"{world_size} with args.gradient_accumulation_steps for the same batch.",
        )


def processes_asked_for(launcher: Sequence[str]) -> int | None:
    """The number of processes in the arguments of an `accelerate launch`, or in the
    configuration file they name; None where accelerate chose it, and said so."""
    from accelerate.commands.config import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    asked = launch_command_parser().parse_args(list(launcher))
    if asked.num_processes is None and asked.config_file is not None:
        return load_config_from_file(asked.config_file).num_processes
    return asked.num_processes


def launcher_arguments() -> list[str] | None:
    """Arguments of the `accelerate launch` above this process, None if there is none.
    The environment does not tell: with `--cpu` nothing of the number is in it."""
    import psutil

    try:
        above = psutil.Process().parents()[:3]
        commands = [process.cmdline() for process in above]
    except psutil.Error:
        return None
    for command in commands:
        for place, word in enumerate(command[:4]):
            program = os.path.basename(word)
            if program == "accelerate" and command[place + 1 : place + 2] == ["launch"]:
                return command[place + 2 :]
            if program in ("accelerate-launch", "accelerate.commands.launch"):
                return command[place + 1 :]
            if word.endswith(os.path.join("accelerate", "commands", "launch.py")):
                return command[place + 1 :]
    return None
