"""The mouse inside a session: dragging the latents' bars, clicking on a future."""

from __future__ import annotations

import pygame

from player.session import Session
from player.view import panels
from player.view.layout import Layout
from player.view.screen import Show, futures_places

EVENTS = (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP, pygame.MOUSEMOTION)


class Mouse:
    """What is being dragged."""

    def __init__(self) -> None:
        self._dragged: int | None = None

    def release(self) -> None:
        """Lets go."""
        self._dragged = None

    def handle(
        self, event: pygame.event.Event, session: Session, layout: Layout, show: Show
    ) -> None:
        """Takes an event of the mouse: on the bars the left button holds, the right lets go."""
        if event.type == pygame.MOUSEBUTTONUP:
            self._dragged = None
        elif event.type == pygame.MOUSEBUTTONDOWN:
            self._press(event, session, layout, show)
        elif self._dragged is not None:
            self._drag(event.pos, session, layout, show)

    def _press(
        self, event: pygame.event.Event, session: Session, layout: Layout, show: Show
    ) -> None:
        if event.button == pygame.BUTTON_LEFT and session.futures is not None:
            for index, place in enumerate(futures_places(layout, session, show)):
                if place.collidepoint(event.pos):
                    session.choose(index)
                    return
        # The gaps between the bars belong to them.
        found = enumerate(bar.inflate(2, 2) for bar in bars(layout, session, show))
        dimension = next((i for i, bar in found if bar.collidepoint(event.pos)), None)
        if dimension is None:
            return
        if event.button == pygame.BUTTON_RIGHT:
            session.unpin(dimension)
        elif event.button == pygame.BUTTON_LEFT:
            self._dragged = dimension
            self._drag(event.pos, session, layout, show)

    def _drag(self, point: tuple[int, int], session: Session, layout: Layout, show: Show) -> None:
        places = bars(layout, session, show)
        if self._dragged is not None and places:
            session.pin(self._dragged, panels.value_at(places[self._dragged], point[1]))


def bars(layout: Layout, session: Session, show: Show) -> list[pygame.Rect]:
    """Where the latents' bars are; empty while they are not shown."""
    if not show.latent or layout.panel is None:
        return []
    parts = panels.sections(layout.panel, layout.unit, show.parts(session))
    return panels.cells(parts["latent"], layout.unit, session.world.task.latent_size)
