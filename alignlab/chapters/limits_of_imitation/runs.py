"""The experiments of notebook 02: which arms each one trains, and with which seeds.

The arms stand in a module of their own for each topic.
"""

from collections.abc import Sequence

from alignlab.chapters.limits_of_imitation.elicitation import elicitation_arm
from alignlab.chapters.limits_of_imitation.hallucination import facts_arm
from alignlab.chapters.limits_of_imitation.narrow_data import narrow_arm
from alignlab.chapters.limits_of_imitation.real_refusals import (
    SETS,
    draw_prompts,
    real_arm,
)
from alignlab.chapters.limits_of_imitation.safety_tuning import safety_arm
from alignlab.errors import AlignlabError
from alignlab.study.arms import run_arms, run_groups


def sweep_elicitation(*, seeds: Sequence[int], jobs: int = 2, **common) -> list[dict]:
    """The elicitation arm for every seed."""
    arms = [dict(seed=seed, **common) for seed in seeds]
    return run_arms(elicitation_arm, arms, jobs=jobs, label="what SFT elicits")


def sweep_facts(
    *,
    seeds: Sequence[int],
    costly_seeds: Sequence[int],
    n_facts: int,
    n_admission_facts: int,
    looks: Sequence[int],
    jobs: int = 2,
    **common,
) -> dict[str, list[dict]]:
    """SFT on known and never-shown facts, by the name of the arm; all with as many
    updates.

    Args:
        seeds: for the arms that verdicts rest on.
        costly_seeds: for "first half" and "second half".
        n_facts: known facts, and never-shown ones, of the arms "known alone" (which has
            only the known ones), "mixture" (true answers), "first half" and "second
            half" (the never-shown ones labelled from one half of the answers).
        n_admission_facts: known facts, and never-shown ones, of the arms "answering" (a
            quarter of the never-shown ones admitted) and "admitting" (all of them).
        looks: updates after which to evaluate; the last ends the runs. One look has to
            be at half of the last, for the comparison at equal epochs.
        common: further arguments of ``facts_arm``.

    Raises:
        ValueError: if no look is at half of the last.
    """
    if looks[-1] / 2 not in looks:
        raise ValueError(
            f"looks are {list(looks)}; one has to be at {looks[-1] / 2:g}, half of the "
            "last"
        )
    half = dict(n_known=n_facts, n_never=n_facts)
    large = dict(n_known=n_admission_facts, n_never=n_admission_facts)
    end = [looks[-1]]
    arms = {
        "known alone": (dict(n_known=n_facts, n_never=0, looks=looks), seeds),
        "mixture": (dict(**half, looks=looks), seeds),
        "answering": (dict(**large, looks=end, labels="quarter admitted"), seeds),
        "admitting": (dict(**large, looks=end, labels="admitted"), seeds),
        "first half": (dict(**half, looks=end, labels="first"), costly_seeds),
        "second half": (dict(**half, looks=end, labels="second"), costly_seeds),
    }
    calls = {
        name: [(facts_arm, dict(seed=s, **arm, **common)) for s in own]
        for name, (arm, own) in arms.items()
    }
    return run_groups(calls, jobs=jobs, label="unknown facts")


def sweep_safety(
    *,
    seeds: Sequence[int],
    ns: Sequence[int],
    n_contrast: int,
    jobs: int = 2,
    **common,
) -> list[dict]:
    """n refusals for every n; and ``n_contrast`` with as many look-alikes beside
    them."""
    arms = [dict(n_refusals=n, n_look_alikes=0) for n in sorted(ns)]
    arms.append(dict(n_refusals=n_contrast, n_look_alikes=n_contrast))
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
