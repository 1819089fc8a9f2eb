"""The table of keys, and keys from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from player.commands import BINDINGS, Command, markdown_table
from player.keys import chord, rebound
from wm_tf.errors import UserError


@pytest.fixture(autouse=True)
def _window(world, make_app):
    """pygame knows the names of keys once a window is open."""
    make_app(world)


def test_no_key_has_two_meanings():
    keys = [chord(name) for binding in BINDINGS for name in binding.keys]
    assert len(keys) == len(set(keys))
    assert {binding.command for binding in BINDINGS} == set(Command)


def test_markdown_table_names_every_binding():
    table = markdown_table()
    assert "<kbd>Shift+R</kbd>" in table
    assert all(binding.text in table for binding in BINDINGS)
    assert "| <kbd>Tab</kbd> | Y | who drives" in table


def test_the_readme_shows_the_key_table():
    readme = Path(__file__).parents[2] / "README.md"
    assert markdown_table() in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('fly = ["f"]', "fly"),
        ('gas = ["no such key"]', "no such key"),
        ('gas = ["left"]', "both left and gas"),
        ("gas = 3", "list"),
        ("gas", "keys.toml"),
    ],
)
def test_keys_that_cannot_be_used_are_named(tmp_path, text, says):
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        rebound(path)
