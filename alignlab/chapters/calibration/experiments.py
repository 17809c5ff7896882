"""What a reader of notebook 07 measures and explains: how sure a policy becomes, by the
price of KL at which it is rewarded.
"""

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment

EXERCISES = {
    "07.4": Experiment(
        changed="β",
        measured="the confidence in the favourite option",
        lowest=0.01,
        highest=10.0,
        hints=(
            "`reward_policy(beta)` trains a copy on your loss and gives the "
            "log-probabilities of four options for each item. What is a confidence "
            "made of them?",
            "A softmax over the four, then the largest of each row.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=20,
        stars=2,
        items=20,
        limits=(0.25 - 1e-6, 1.0),
    ),
    "07.5": Interpretation(
        hints=(
            "The closed form of exercise 07.2 says where training ends. Put your β "
            "into it: how sure should the policy have become?",
            "The reward is an expectation. Where does a policy earn most if one option "
            "is right in six cases of ten?",
        ),
        minutes=15,
        stars=2,
    ),
}
