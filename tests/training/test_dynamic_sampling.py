"""Groups without variance are replaced, within a limit, the same on every number of processes."""

import threading

import pytest
import torch
from genseg_training import cli, dynamic_sampling
from genseg_training.dynamic_sampling import Sampled

from tests.helpers.grpo_runs import history, options

WEIGHTS, GROUP = torch.tensor([1.0]), 2


def answered(rows, rewards):
    """Return rows whose answers are named after them."""
    answers = [([1], [place], f"{row['name']}.{place}", None) for place, row in enumerate(rows)]
    return Sampled(rows, answers, [[row["image"]] for row in rows], torch.tensor(rewards)[:, None])


def row(name):
    return {"name": name, "image": f"picture of {name}"}


def batch(*names):
    return [row(name) for name in names for _ in range(GROUP)]


def reward_of(rows):
    """Reward one answer of a group whose name begins with `good`, and none of any other."""
    return [float(row["name"].startswith("good") and place % GROUP == 0) for place, row in enumerate(rows)]


def fill(names, replacements, rounds):
    asked = []

    def draw(count, done):
        asked.append((count, done))
        return [row(name) for name in replacements[done][:count]]

    first = batch(*names)
    filled, figures = dynamic_sampling.fill(
        answered(first, reward_of(first)),
        lambda rows: answered(rows, reward_of(rows)),
        draw,
        WEIGHTS,
        GROUP,
        rounds,
    )
    return filled, figures, asked


def test_useless_groups_are_drawn_again_until_all_teach():
    filled, figures, asked = fill(["bad", "good", "bad"], [["good 1", "bad"], ["good 2"]], rounds=5)
    assert [its["name"] for its in filled.rows[::GROUP]] == ["good 1", "good", "good 2"]
    assert asked == [(2, 0), (1, 1)]
    assert figures == {
        "dynamic_sampling/rounds": 2,
        "dynamic_sampling/generated": 2,
        "dynamic_sampling/without_variance_before": pytest.approx(2 / 3),
    }
    for its, (_, _, completion, _), image, reward in zip(
        filled.rows, filled.answers, filled.images, filled.rewards, strict=True
    ):
        assert completion.startswith(its["name"])
        assert image == [its["image"]]
        assert reward == float(completion.endswith(("0", "2")) and its["name"] != "bad") or its["name"] == "good"
    prompts, tokens, mask, completions, logprobs, extra, images, tools = filled.as_trl()
    assert [len(part) for part in (prompts, tokens, completions, images, tools)] == [6] * 5
    assert (mask, logprobs, extra) == (None, None, {})


def test_the_limit_of_rounds_holds():
    filled, figures, asked = fill(["bad", "good"], [["bad"], ["bad"], ["good"]], rounds=2)
    assert [its["name"] for its in filled.rows[::GROUP]] == ["bad", "good"]
    assert len(asked) == 2
    assert figures["dynamic_sampling/generated"] == 2


def test_a_batch_that_teaches_costs_nothing():
    _, figures, asked = fill(["good"], [], rounds=3)
    assert asked == []
    assert figures["dynamic_sampling/generated"] == 1


def test_two_processes_fill_as_one(monkeypatch):
    """Each process has a group of its own, and half of a group of three answers that both share."""
    size, world = 3, 2
    names = ["good", "bad", "bad", "good"]
    whole = [row(name) for name in names for _ in range(size)]
    replacements = [row("good 1"), row("good 2")]
    barrier, exchange = threading.Barrier(world), {}

    def rewards(rows):
        return [float(its["name"].startswith("good") and place % size == 0) for place, its in enumerate(rows)]

    def run(rank):
        def gather(mine):
            exchange[rank] = mine
            barrier.wait()
            both = exchange[0] + exchange[1]
            barrier.wait()
            return both

        local.gather = gather
        drawn = [its for its in replacements for _ in range(size)]

        def again(rows):
            assert len(rows) == len(drawn) // world
            start = rank * len(rows)
            answers = [([1], [start + i], f"{its['name']}.{start + i}", None) for i, its in enumerate(rows)]
            return Sampled(rows, answers, [[its["image"]] for its in rows], torch.tensor(rewards(drawn))[:, None])

        here = len(whole) // world
        mine = whole[rank * here : (rank + 1) * here]
        answers = [([1], [i], its["name"], None) for i, its in enumerate(mine)]
        first = Sampled(mine, answers, [[its["image"]] for its in mine], torch.tensor(rewards(whole))[:, None])
        results[rank], _ = dynamic_sampling.fill(first, again, lambda *_: replacements, WEIGHTS, size, 1, rank, world)

    local, results = threading.local(), {}
    monkeypatch.setattr(dynamic_sampling, "gather_object", lambda mine: local.gather(mine))
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    together = [its["name"] for rank in range(world) for its in results[rank].rows]
    assert together == [name for name in ("good", "good 1", "good 2", "good") for _ in range(size)]
    said = [completion for rank in range(world) for _, _, completion, _ in results[rank].answers]
    drawn = [f"good 1.{i}" for i in range(3)] + [f"good 2.{i}" for i in range(3, 6)]
    assert said == ["good"] * 3 + drawn + ["good"] * 3
    assert torch.equal(results[0].rewards, results[1].rewards)


def test_a_run_that_samples_again_trains_and_says_what_it_took(tmp_path):
    """Without a reward that could differ, every group is drawn again in each round, and the run goes on."""
    cli.main(options(tmp_path, max_steps=1, dynamic_sampling=2, rewards="format", reward_weights=1.0, temperature=0.1))
    (entry,) = [entry for entry in history(tmp_path) if "dynamic_sampling/rounds" in entry]
    assert entry["dynamic_sampling/rounds"] == 2
    assert entry["dynamic_sampling/generated"] == 3
    assert entry["dynamic_sampling/without_variance_before"] == entry["groups_without_variance"] == 1
    assert entry["rewards/format_reward/mean"] == 1
