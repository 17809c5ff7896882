"""The loop: learning rates in closed form, exact resumption, honest failures."""

import itertools
import math

import pytest
import torch
from torch import nn

from alignlab.errors import AlignlabError
from alignlab.seeds import torch_seed
from alignlab.training import loop
from alignlab.training.loop import count_tokens, lr_at, train


class Toy(nn.Module):
    """An embedding, a norm, dropout and a matrix: one of each kind of parameter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.embed, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(8, 11)

    def forward(self, input_ids):
        return self.out(self.drop(self.norm(self.embed(input_ids))))


def copying(model, batch):
    """Say the token that was read."""
    logits = model(batch["input_ids"]).flatten(0, 1)
    return nn.functional.cross_entropy(logits, batch["input_ids"].flatten()), {}


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield {"input_ids": torch.randint(0, 11, (4, 6), generator=generator)}


def run(model, batches=None, loss_fn=copying, **settings):
    settings = {"steps": 20, "learning_rate": 0.01, "progress": False} | settings
    return train(model, rows() if batches is None else batches, loss_fn, **settings)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- learning rates -------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_warmup_is_a_straight_line_that_ends_at_the_peak(schedule):
    rate = [
        lr_at(s, steps=100, learning_rate=2.0, schedule=schedule, warmup=4, decay=10)
        for s in range(5)
    ]
    assert rate == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_each_schedule_has_its_closed_form_after_the_warmup():
    for step in range(10, 110):
        done = (step - 10) / 100
        closed = {
            "constant": 3.0,
            "linear": 3 * (1 - done),
            "cosine": 1.5 * (1 + math.cos(math.pi * done)),
            "wsd": 3.0 if step < 85 else 3 * (110 - step) / 25,
        }
        for schedule, expected in closed.items():
            rate = lr_at(
                step,
                steps=110,
                learning_rate=3.0,
                schedule=schedule,
                warmup=10,
                decay=25,
            )
            assert rate == pytest.approx(expected, rel=1e-12), (schedule, step)


def test_a_run_without_decay_is_the_stable_part_of_every_longer_one():
    def rates(steps, decay):
        return [
            lr_at(
                s, steps=steps, learning_rate=1, schedule="wsd", warmup=5, decay=decay
            )
            for s in range(steps)
        ]

    stable = rates(50, 0)
    for decay in (1, 10, 30):
        longer = rates(50 + decay, decay)
        assert longer[:50] == stable
        assert longer[50:] == pytest.approx([1 - k / decay for k in range(decay)])


# --- what is learned, and what is reported --------------------------------------------


def test_the_loop_takes_the_steps_of_a_bare_loop():
    """The same updates as AdamW written out, with clipping and a linear decay."""
    found, expected = Toy(), Toy()
    history = run(
        found, schedule="linear", warmup=3, weight_decay=0.1, max_grad_norm=0.5, seed=1
    )
    expected.train()
    torch.manual_seed(torch_seed(1, "dropout"))
    moments = {name: (0.0, 0.0) for name, _ in expected.named_parameters()}
    for step, batch in zip(range(20), rows(), strict=False):
        rate = 0.01 * ((step + 1) / 3 if step < 3 else (20 - step) / 17)
        loss, _ = copying(expected, batch)
        expected.zero_grad()
        loss.backward()
        norm = sum((p.grad**2).sum() for p in expected.parameters()).sqrt()
        for name, p in expected.named_parameters():
            grad = p.grad * min(1.0, 0.5 / norm.item())
            first, second = moments[name]
            first, second = 0.9 * first + 0.1 * grad, 0.95 * second + 0.05 * grad**2
            moments[name] = first, second
            shrink = 1 - rate * 0.1 if name == "out.weight" else 1.0
            update = first / (1 - 0.9 ** (step + 1))
            update /= (second / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8
            p.data = shrink * p.data - rate * update
        assert history[step]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert history[step]["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
        assert history[step]["learning_rate"] == pytest.approx(rate, rel=1e-12)
    torch.testing.assert_close(
        parameters(found), parameters(expected), rtol=1e-4, atol=1e-5
    )


def test_history_counts_steps_tokens_and_time_and_keeps_what_the_loss_logs():
    kept = []
    history = run(
        Toy(),
        loss_fn=lambda model, batch: (copying(model, batch)[0], {"accuracy": 0.5}),
        log_every=8,
        on_log=kept.append,
    )
    assert [row["step"] for row in history] == [8, 16, 20]
    assert [row["tokens"] for row in history] == [8 * 24, 16 * 24, 20 * 24]
    assert all(row["accuracy"] == 0.5 for row in history)
    seconds = [row["seconds"] for row in history]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert kept == history


def test_tokens_are_those_the_attention_mask_keeps_in_every_part_of_the_batch():
    ids, mask = torch.zeros(2, 5), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    assert count_tokens({"input_ids": ids}) == 10
    assert count_tokens({"input_ids": ids, "attention_mask": mask, "mask": ids}) == 4
    pair = {"chosen_input_ids": ids, "chosen_attention_mask": mask}
    assert count_tokens(pair | {"rejected_input_ids": ids}) == 14


def test_the_mode_is_given_back_and_frozen_parameters_stay():
    model = Toy().eval()
    model.embed.requires_grad_(False)
    before = model.embed.weight.clone()
    modes = []

    def watching(model, batch):
        modes.append(model.training)
        return copying(model, batch)

    run(model, loss_fn=watching)
    assert all(modes) and not model.training
    assert torch.equal(model.embed.weight, before)


def test_the_mode_is_given_back_after_an_error_too():
    model = Toy().eval()
    model.drop.train()  # each module its own

    def failing(model, batch):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(model, loss_fn=failing)
    assert not model.training and not model.norm.training and model.drop.training


def test_without_dropout_modules_that_checkpoint_activations_still_do():
    model = Toy()
    model.norm.gradient_checkpointing = True  # only works in training mode
    modes = []

    def watching(model, batch):
        modes.append((model.norm.training, model.drop.training))
        return copying(model, batch)

    run(model, loss_fn=watching, disable_dropout=True)
    assert set(modes) == {(True, False)}
    modes.clear()
    run(model, loss_fn=watching)
    assert set(modes) == {(True, True)}


# --- stopping and going on ------------------------------------------------------------


def stop_at(step):
    def on_log(row):
        if row["step"] == step:
            raise KeyboardInterrupt

    return on_log


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.mark.parametrize("killed_at", [1, 6, 7, 19])
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path, killed_at):
    whole = Toy()
    expected = run(whole)
    file = tmp_path / "run" / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        run(Toy(), checkpoint=file, checkpoint_every=3, on_log=stop_at(killed_at))
    torch.manual_seed(99)  # whatever happened in between
    resumed = Toy()
    with torch.no_grad():
        resumed.out.weight.zero_()  # the weights come from the file, not from here
    if killed_at < 3:
        resumed = Toy()  # nothing was written yet
    history = run(resumed, checkpoint=file, checkpoint_every=3)
    assert torch.equal(parameters(resumed), parameters(whole))
    assert without_time(history) == without_time(expected)


def test_a_finished_run_takes_no_step_and_returns_its_history(tmp_path):
    first, again = Toy(), Toy()
    history = run(first, checkpoint=tmp_path / "state.pt")
    assert run(again, iter(()), checkpoint=tmp_path / "state.pt") == history
    assert torch.equal(parameters(again), parameters(first))


def test_a_decay_can_be_branched_from_the_end_of_the_stable_phase(tmp_path):
    """Stable first and the decay later, or all at once: the same bits."""
    settings = {"schedule": "wsd", "warmup": 4}
    whole, branch = Toy(), Toy()
    run(whole, steps=30, decay=10, **settings)
    file = tmp_path / "state.pt"
    stable = run(branch, steps=20, decay=0, checkpoint=file, **settings)
    assert stable[-1]["learning_rate"] == 0.01
    run(branch, steps=30, decay=10, checkpoint=file, **settings)
    assert torch.equal(parameters(branch), parameters(whole))


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "state.pt"
    run(Toy(), checkpoint=file, schedule="constant", warmup=1)
    before = file.read_bytes()

    def full_disk(state, path):
        path.write_bytes(before[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(Toy(), checkpoint=file, steps=40, schedule="constant", warmup=1)
    assert file.read_bytes() == before


def test_a_checkpoint_that_does_not_fit_says_so(tmp_path):
    file = tmp_path / "state.pt"
    run(Toy(), checkpoint=file)
    with pytest.raises(AlignlabError, match="step 20, past the 10"):
        run(Toy(), checkpoint=file, steps=10)
    with pytest.raises(AlignlabError, match="step 1 at learning rate 0.01; .* 0.02"):
        run(Toy(), checkpoint=file, learning_rate=0.02)
    with pytest.raises(AlignlabError, match="Cannot continue .* state_dict"):
        run(nn.Linear(2, 2), checkpoint=file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(AlignlabError, match="Delete it to start again"):
        run(Toy(), checkpoint=file)


# --- failures -------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_its_step_before_the_weights_change(bad):
    model, count = Toy(), itertools.count(1)
    snapshots = {}

    def failing(model, batch):
        step = next(count)
        snapshots[step] = parameters(model)
        loss, logs = copying(model, batch)
        return loss * (bad if step == 5 else 1.0), logs

    with pytest.raises(
        AlignlabError, match="step 5 of training .* Lower learning_rate"
    ):
        run(model, loss_fn=failing)
    assert torch.equal(parameters(model), snapshots[5])


def test_batches_that_end_too_early_are_named():
    with pytest.raises(AlignlabError, match="ended after 3 of 20 steps"):
        run(Toy(), itertools.islice(rows(), 3))


def test_wrong_arguments_are_named():
    for settings, message in (
        ({"schedule": "cosinus"}, "'cosinus'"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"schedule": "wsd", "warmup": 15, "decay": 10}, "decay 10 of 20"),
    ):
        with pytest.raises(ValueError, match=message):
            run(Toy(), **settings)


def test_a_model_of_which_nothing_can_be_trained_is_refused():
    model = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(AlignlabError, match="Nothing of the model can be trained"):
        train(model, [{}], lambda *_: pytest.fail(), steps=1, learning_rate=1e-3)


# --- numbers that stay on the device --------------------------------------------------


def test_logs_may_be_tensors(monkeypatch):
    def with_logs(model, batch):
        loss, _ = copying(model, batch)
        return loss, {"twice": 2 * loss.detach(), "plain": 3.0}

    for row in run(Toy(), loss_fn=with_logs, steps=3):
        assert row["twice"] == pytest.approx(2 * row["loss"])
        assert row["plain"] == 3.0
        assert all(isinstance(value, float | int) for value in row.values())


def test_reading_keeps_names_order_and_values():
    rows = [
        {"a": torch.tensor(1.5), "b": 2.0},
        {"a": torch.tensor(0.1), "b": torch.tensor(3.0, dtype=torch.float64)},
    ]
    expected = [{"a": 1.5, "b": 2.0}, {"a": torch.tensor(0.1).item(), "b": 3.0}]
    assert loop.read(rows) == expected
    assert loop.read([{"b": 1.0}]) == [{"b": 1.0}]


def test_the_first_of_several_steps_that_exploded_is_named():
    rows = [{"loss": 1.0, "grad_norm": 1.0}] * 3
    rows[1] = {"loss": math.nan, "grad_norm": 1.0}
    with pytest.raises(AlignlabError, match="At step 9 of this the loss is nan"):
        loop._require_finite(rows, 9, "this", 0.1)
    loop._require_finite(rows[:1], 0, "this", 0.1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_memory_that_has_run_out_says_what_to_change(error):
    def too_large(model, batch):
        raise error

    with pytest.raises(AlignlabError, match="memory has run out") as raised:
        run(Toy(), loss_fn=too_large)
    assert "accumulate" in raised.value.remedy
    assert "\n" not in raised.value.message


def test_a_batch_may_be_empty():
    """Where the loss function has its data by itself."""
    own = next(rows())

    def full_batch(model, batch):
        assert batch == {}
        return copying(model, own)

    assert len(run(Toy(), itertools.repeat({}), full_batch, steps=2)) == 2


def test_other_errors_pass():
    def broken(model, batch):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run(Toy(), loss_fn=broken)
