"""The data of recipes/1m: replies about countries and elements by writers of two
qualities, compared and rated by gold.

    python -m tests.training.recipes.small_data

writes them again.
"""

import json
from pathlib import Path

from alignlab.seeds import stream
from alignlab.study.artifacts import subjects
from alignlab.world import gold, tasks

FOLDER = Path(__file__).parents[3] / "recipes" / "1m" / "data"
GOOD, BAD = 0.9, 0.2  # qualities; see gold.demonstration
ROWS = 128


def files() -> dict[str, str]:
    """The content of each file, by name."""
    world, rng = tasks.default_world(), stream(0, "recipe data")
    rows: dict[str, list] = {
        "demonstrations": [],
        "pairs": [],
        "ratings": [],
        "prompts": [],
    }
    names = subjects("train")
    for number in range(ROWS):
        subject = names[number % len(names)]
        replies = [gold.demonstration(world, subject, rng, q) for q in (GOOD, BAD)]
        golds = [gold.gold_reward(world, subject, text).total for text in replies]
        prompt = [{"role": "user", "content": gold.request(subject)}]
        good, bad = ([{"role": "assistant", "content": text}] for text in replies)
        if golds[0] < golds[1]:
            good, bad = bad, good
        rows["demonstrations"].append({"prompt": prompt, "completion": good})
        if golds[0] != golds[1]:
            rows["pairs"].append({"prompt": prompt, "chosen": good, "rejected": bad})
        for completion, label in ((good, True), (bad, False)):
            rows["ratings"].append(
                {"prompt": prompt, "completion": completion, "label": label}
            )
        rows["prompts"].append({"prompt": prompt, "subject": subject})
    return {
        f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in kept)
        for name, kept in rows.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
