"""What a reader of notebook 05 measures and explains: whether β is a price already
after a few steps.
"""

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment

EXERCISES = {
    "05.3": Experiment(
        changed="β",
        measured="the margin",
        lowest=0.005,
        highest=5.0,
        hints=(
            "`learn(my_dpo_loss, beta=...)` gives a policy, and `log_probs_of(policy, "
            "unseen, pad)` what it thinks of unseen pairs. What has to be taken off to "
            "make margins of that?",
            "The same pairs are measured at each β, so compare pair by pair: what is "
            "the standard error of the mean of N differences?",
            "h = (chosen - chosen before) - (rejected - rejected before); then "
            "`change = last - first`, `change.mean()`, `change.std() / len(change) ** "
            "0.5`.",
        ),
        minutes=25,
        stars=2,
        limits=(-500.0, 500.0),
    ),
    "05.4": Interpretation(
        hints=(
            "Adam divides each gradient by its own recent size. What does a factor "
            "that is common to all steps then do?",
            "In the closed form nothing is said of steps: it is where training ends. "
            "How far had yours come?",
        ),
        minutes=15,
        stars=3,
    ),
}
