"""What happens on the title screen: choosing, and a dream that goes on behind the words."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pygame

from player import choice as choices
from player.choice import Choice, Drivers
from player.commands import Binding, Command
from player.driving import HANDS_OFF, Driver, Hands
from player.session import Session
from player.view.overlays import Help
from player.view.palette import Type
from player.view.screen import Show
from player.view.title import Target, Title
from player.world import NOISE, REAL


class Foyer:
    """The choice, as it is being made."""

    def __init__(self, choice: Choice, drivers: Drivers, bindings: Sequence[Binding]) -> None:
        self.choice = choice
        self.back_to: Choice | None = None  # what was shown before, should the next not load
        self.drivers = drivers
        self._title = Title(bindings)
        self._help = Help(bindings, Type())
        self._started = time.perf_counter()
        self._targets: list[Target] = []

    def follow(self, session: Session) -> None:
        """Shows the choice that a session stands for."""
        task = session.world.task.name
        self.choice = replace(self.choice, task=task, driver=session.driver, source=session.source)
        self.back_to = self.choice

    def do(self, command: Command, session: Session | None) -> bool:
        """Carries out a command of the title screen; False for what begins the dream."""
        if command is Command.TITLE:
            self._choose(choices.next_task(self.choice, self.drivers), session)
        elif command is Command.NEXT_DRIVER:
            self._choose(choices.next_driver(self.choice, self.drivers), session)
        elif command is Command.BEGIN_ELSEWHERE:
            self._choose(replace(self.choice, source=REAL), session, anew=True)
        elif command is Command.BEGIN_IN_NOISE:
            self._choose(replace(self.choice, source=NOISE), session, anew=True)
        else:
            return False
        return True

    def click(self, event: pygame.event.Event, session: Session | None) -> bool:
        """Takes an event of the mouse; True where it begins the dream."""
        if event.type != pygame.MOUSEBUTTONDOWN or event.button != pygame.BUTTON_LEFT:
            return False
        for rect, made in self._targets:
            if rect.collidepoint(event.pos):
                if made is None:
                    return True
                self._choose(made, session)
        return False

    def tick(self, session: Session) -> None:
        """One step of the dream that is shown meanwhile; where it ends another begins."""
        alone = session.driver is Driver.HUMAN
        session.rewinding = False
        session.tick(_calm_hands(session.step) if alone else HANDS_OFF)
        if session.ended:
            session.do(Command.BEGIN_AGAIN)

    def draw(self, surface: pygame.Surface, frame: np.ndarray | None, show: Show) -> None:
        """Draws the title screen, with the dream where there is one."""
        seconds = time.perf_counter() - self._started
        self._targets = self._title.draw(
            surface, self.choice, self.drivers, seconds, frame, show.message
        )
        if show.help:
            self._help.draw(surface)

    def _choose(self, choice: Choice, session: Session | None, anew: bool = False) -> None:
        before, self.choice = self.choice, choice
        if session is None or choice.task != session.world.task.name:
            return
        session.driver = choice.driver
        if anew or choice.source is not before.source:
            session.begin_from(choice.source)


def _calm_hands(step: int) -> Hands:
    """Somebody who drives without aim, a little to the left and to the right."""
    gas = 0.6 if step % 100 < 60 else 0.15
    return Hands(0.35 * math.sin(step / 32), gas, analog=frozenset({"steer", "gas"}))
