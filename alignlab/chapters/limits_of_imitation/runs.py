"""The experiments of notebook 02: which arms each one trains, and with which seeds.

The arms stand in a module of their own for each topic.
"""

from collections.abc import Sequence

from alignlab.chapters.limits_of_imitation.hallucination import facts_arm
from alignlab.chapters.limits_of_imitation.narrow_data import narrow_arm
from alignlab.chapters.limits_of_imitation.real_refusals import (
    SETS,
    draw_prompts,
    real_arm,
)
from alignlab.chapters.limits_of_imitation.safety_tuning import safety_arm
from alignlab.errors import AlignlabError
from alignlab.study.arms import run_arms


def sweep_facts(
    *,
    seeds: Sequence[int],
    costly_seeds: Sequence[int],
    shares: Sequence[float],
    more_shares: Sequence[float],
    relabelled_share: float = 0.5,
    jobs: int = 2,
    **common,
) -> list[dict]:
    """SFT on known and unknown facts: several shares of unknown ones with their
    controls, then other labels for the unknown ones.

    Args:
        seeds: for each share in ``shares``, and for the admissions.
        costly_seeds: for each share in ``more_shares``, and for the labels from one
            half of the answers.
        relabelled_share: share of unknown facts where their labels are not the true
            ones.
        common: further arguments of ``facts_arm``.
    """
    arms = [
        dict(seed=seed, share=share, control=control, labels="true")
        for some_shares, some_seeds in ((shares, seeds), (more_shares, costly_seeds))
        for share in some_shares
        for control in ((False, True) if 0 < share < 1 else (False,))
        for seed in some_seeds
    ]
    arms += [
        dict(seed=seed, share=relabelled_share, control=False, labels=labels)
        for labels, some_seeds in (
            ("admission", seeds),
            ("first", costly_seeds),
            ("second", costly_seeds),
        )
        for seed in some_seeds
    ]
    arms = [{**arm, **common} for arm in arms]
    return run_arms(facts_arm, arms, jobs=jobs, label="unknown facts")


def sweep_safety(
    *, seeds: Sequence[int], ns: Sequence[int], n_control: int, jobs: int = 2, **common
) -> list[dict]:
    """n safety examples for every n; at the largest n also with look-alikes among them;
    and as a control ``n_control`` more questions in place of safety examples."""
    arms = [dict(n=n, extra="safety") for n in sorted(ns, reverse=True)]
    arms.append(dict(n=max(ns), extra="with_contrast"))
    arms.append(dict(n=n_control, extra="questions"))
    arms = [dict(seed=seed, **arm, **common) for arm in arms for seed in seeds]
    return run_arms(safety_arm, arms, jobs=jobs, label="safety examples")


def sweep_narrow_data(*, seeds: Sequence[int], jobs: int = 2, **common) -> list[dict]:
    """Diverse and narrow data for every seed."""
    arms = [
        dict(seed=seed, data=data, **common)
        for data in ("diverse", "narrow")
        for seed in seeds
    ]
    return run_arms(narrow_arm, arms, jobs=jobs, label="narrow and diverse data")


def sweep_real_prompts(
    *, model: str, n: int, xstest: str = "", seed: int = 0
) -> list[dict]:
    """A chat model on every set of real prompts that can be loaded; for each of the
    others a line is printed that says why not."""
    arms = []
    for prompts in SETS:
        try:
            draw_prompts(prompts, 1, seed, xstest)
        except AlignlabError as error:
            print(f"{prompts} is left out: {error}")
        else:
            arms.append(dict(seed=seed, prompts=prompts))
    arms = [dict(arm, model=model, n=n, xstest=xstest) for arm in arms]
    return run_arms(real_arm, arms, jobs=1, label=f"real prompts for {model}")
