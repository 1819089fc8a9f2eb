"""The model card: generated from the manifest, with a header that machines read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wm_tf.config import get_task
from wm_tf.serving import card, manifest
from wm_tf.serving.manifest import EndRule

SCORE = {
    "env": "real", "frames": "official", "seed": 7, "episodes": 100, "mean": 684.21, "std": 211.4,
    "se": 21.1, "min": 12.0, "max": 896.0, "command": "python -m wm_tf evaluate car_racing",
}  # fmt: skip


FILES = ("vision/1/saved_model.pb", "memory/1/saved_model.pb", "controller/1/saved_model.pb")


def rendered(files: tuple[str, ...] = FILES, **facts: Any) -> str:
    environment = {"id": "CarRacing-v3", "version": "1.2.0", "settings": {}}
    return card.render(
        manifest.build(get_task("car_racing"), manifest.Facts(environment, **facts)), files
    )


def test_the_header_states_the_real_score_as_hugging_face_reads_it() -> None:
    text = rendered(scores=[SCORE, {**SCORE, "env": "dream", "mean": 990.0}])
    start, header, body = text.split("---\n", 2)
    assert start == ""
    lines = [line.strip() for line in header.splitlines()]
    assert "license: mit" in lines
    assert "- type: mean_reward" in lines
    assert 'value: "684.2 +/- 211.4"' in lines
    assert 'name: "CarRacing-v3"' in lines
    assert "990.0" not in header  # a dream's score is not the environment's
    assert "990.0 +/- 211.4" in body
    assert "`python -m wm_tf evaluate car_racing`" in body


def test_models_without_scores_claim_none() -> None:
    text = rendered()
    assert "model-index" not in text
    assert "have not been scored" in text


def test_images_are_shown_where_they_are_given() -> None:
    assert "(contact_sheet.png)" in rendered((*FILES, "contact_sheet.png", "unknown.bin"))
    assert "![" not in rendered()


def test_every_signature_and_the_end_rule_are_described() -> None:
    text = rendered(end=manifest.EndRule("threshold", 0.5, 10.0), training={"what": "60 episodes"})
    for name in ("encode", "decode", "step", "dream", "act"):
        assert f"`{name}`" in text
    assert "`latent` float32 [B, 32]" in text
    assert "exceeds 0.5" in text
    assert "counted 10 times" in text
    assert "- what: 60 episodes" in text


def test_a_card_of_models_without_a_controller_speaks_of_none() -> None:
    text = rendered(FILES[:2])
    assert "C (a linear controller)" in rendered()
    assert "C (a linear controller)" not in text
    assert "`act`" not in text


def test_a_card_tells_hidden_units() -> None:
    stages = {"controller-00": {"hidden": 40}}
    assert "C (a controller with 40 hidden units)" in rendered(config={"stages": stages})


def test_environment_data_training_and_licences_are_told() -> None:
    stages = {
        "collect-00": {"goal": 500, "policy": "random"},
        "vision-00": {"goal": 3},
        "then collect-00": {"amount": 100, "policy": "random"},  # the first of the same games
        "then collect-01": {"amount": 32, "policy": "controller"},
        "then then collect-00": {"amount": 50, "policy": "random", "immortal": False},
        "then then collect-02": {"amount": 16, "policy": "controller", "immortal": True},
    }
    machine = {"processor": "A processor", "cores": 2, "system": "Linux"}
    figures = {
        "collect-00": {"steps": 128747, "seconds": 60.0, "mean_return": 29.214},
        "then then vision-00": {"seconds": 120.0},
    }
    text = rendered(
        config={"stages": stages},
        training={"seconds": 3405.3, "machine": machine, "stages": figures},
    )
    assert "`CarRacing-v3`, version 1.2.0." in text
    data = text.split("## Data\n")[1].split("## ")[0]
    assert "- 500 episodes by the task's exploring policy, which is random, 128,747 steps\n" in data
    assert "- 32 episodes by controllers of the round before\n" in data
    assert "- 16 episodes by controllers of the round before, who went on after each death" in data
    assert data.count("the task's exploring policy") == 1
    assert "- time: 57 minutes of computing" in text
    assert "- machine: A processor, 2 cores, Linux" in text
    assert "| collect-00 | 1.0 | steps 128,747, mean return 29.21 |" in text
    assert "| run 3: vision-00 | 2.0 |" in text
    for heading in ("Intended use", "Limits", "Licences"):
        assert f"\n## {heading}\n" in text
    assert "Box2D (zlib)" in text
    assert "## Data" not in rendered()


def test_the_example_runs(saved_models: Path) -> None:
    folder = saved_models / "car_racing"
    block = (folder / "README.md").read_text().split("```python\n")[2].split("```")[0]
    program = block + "print(sorted(dreamt), dreamt['latent'].shape)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert "done_probability" in done.stdout and "(1, 32)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (EndRule(), "means nothing here"),
        (EndRule("sampled"), "p; a step ends the dream with probability p."),
        (
            EndRule("sampled", odds_correction=10.0),
            "q, as trained on ends that counted 10 times: p = q / (q + 10 (1 - q)); a step ends",
        ),
        (EndRule("threshold", 0.5), "p; a step ends the dream where p exceeds 0.5."),
    ],
)
def test_what_a_probability_of_an_end_means_is_told(end: EndRule, told: str) -> None:
    assert rendered(end=end).split("`done_probability`: ")[1].startswith(told)


def test_earlier_machines_are_told() -> None:
    """`rendered` renders a manifest's changed copy."""
    known = {"processor": "Abacus", "cores": 10, "system": "Beads"}
    text = rendered(training={"machine": known, "earlier_machines": [None, known]})
    assert "earlier machines: not recorded; Abacus, 10 cores, Beads" in text


def test_this_machine_is_described() -> None:
    facts = manifest.machine()
    assert facts["cores"] >= 1
    assert facts["processor"] in card.machine(facts)


def test_the_tags_name_the_method_that_trained_the_controller_last() -> None:
    evolved, learnt = {"method": "evolution"}, {"method": "gradients"}
    assert "\n- cma-es\n" in rendered()
    assert "\n- ppo\n" in rendered(config={"stages": {"controller-00": learnt}})
    stages = {"controller-00": learnt, "then controller-00": evolved}
    assert "\n- cma-es\n" in rendered(config={"stages": stages})


def test_counts_are_whole() -> None:
    """Those of the first manifests, which are floats, too."""
    assert card._stage("vision-00", {"seconds": 60.0, "frames": 11280.0, "kl": 16.3456}) == (
        "| vision-00 | 1.0 | frames 11,280, kl 16.35 |"
    )
