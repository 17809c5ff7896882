"""The policies that notebook 08 mends: stages of notebook 07, from the same arms."""

from collections.abc import Sequence

from alignlab.chapters.calibration.artifacts import DPO_BETA, JUDGED_BETA, stage_arm
from alignlab.study.arms import run_each, run_groups


def policies(
    *, seeds: Sequence[int], steps: int, updates: int, jobs: int, **common
) -> dict[str, list[dict]]:
    """Rows of the policies, a row a seed.

    Args:
        seeds: of SFT, of what follows, and of the items.
        steps: optimizer steps of DPO and of more answers.
        updates: of PPO.
        jobs: arms at a time.
        common: ``draws``, ``limit``, ``base``, ``n_examples``, ``sft_steps`` and
            ``answer_steps``, see ``artifacts.stage_arm``.

    Returns:
        "answers", where the others start; "PPO", "DPO" and "more answers".
    """
    recipes = {
        "answers": {},
        "PPO": dict(beta=JUDGED_BETA, steps=updates),
        "DPO": dict(beta=DPO_BETA, steps=steps),
        "more answers": dict(steps=steps),
    }
    calls = {
        name: [(stage_arm, dict(stage=name, seed=s, **r, **common)) for s in seeds]
        for name, r in recipes.items()
    }
    run_each(calls["answers"], jobs=jobs, label="SFT on answers")
    return run_groups(calls, jobs=jobs, label="policies")
