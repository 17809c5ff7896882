"""What a reader of notebook 03 measures and explains: what wrong labels do to a reward
model, to its order and to its scale.
"""

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment

EXERCISES = {
    "03.2": Experiment(
        changed="the share of wrong labels",
        measured="the lead of the chosen reply",
        lowest=0.0,
        highest=0.5,
        hints=(
            "`train` takes any loss of two columns of rewards. How does a loss see a "
            "pair whose label is wrong?",
            "Draw which pairs of a batch are wrong, and exchange their two rewards "
            "with `torch.where` before your loss sees them. Draw with a generator of "
            "your own, so that the run can be repeated.",
            "`rewards(model, pairs, side, last_token)` for both sides of "
            "`unseen_clear`, under `torch.no_grad()`; their difference is the lead.",
        ),
        minutes=25,
        stars=2,
        start=0.0,
        limits=(-200.0, 200.0),
    ),
    "03.3": Interpretation(
        hints=(
            "If a quarter of the labels is wrong, which of two replies is still chosen "
            "more often?",
            "At which difference of rewards is the loss least, if the better reply "
            "wins three times in four?",
        ),
        minutes=15,
        stars=3,
    ),
}
