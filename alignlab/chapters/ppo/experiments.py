"""What a reader of notebook 04 measures and explains: whether clipping holds a policy
where it is, however often the same replies are used.
"""

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment

EXERCISES = {
    "04.4": Experiment(
        changed="the number of epochs",
        measured="the share of a reply's tokens beyond the clip range",
        lowest=1,
        highest=32,
        hints=(
            "`one_update(learner, my_gae, my_ppo_loss, my_value_loss, rate=1e-3, "
            "epochs=...)` changes a copy of `after`. What has to be computed of it, "
            "and of the policy that sampled?",
            "`predict(learner, episodes)` gives log-probabilities; the ratio to "
            "`episodes.old_log_probs` is beyond the range where it is more than 0.2 "
            "from 1. Only tokens where `mask` is 1 count.",
            "For each reply: `(beyond * mask).sum(1) / mask.sum(1)`, (64,) numbers.",
        ),
        minutes=25,
        stars=2,
        items=32,
        limits=(0.0, 1.0),
        counted=True,
    ),
    "04.5": Interpretation(
        hints=(
            "What is the gradient of a token that is beyond the range? And is it held "
            "there?",
            "One set of weights serves all tokens: who else moves a token that gets no "
            "gradient?",
        ),
        minutes=15,
        stars=3,
    ),
}
