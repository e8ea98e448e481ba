"""The page itself: its layout, and what happens when somebody does something."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from semtransforms.app import looking, showing, texts
from semtransforms.app.visitors import Visitor, Visitors, Wish
from semtransforms.core.hardware import give_back_freed_memory
from semtransforms.evaluation.report.page import STYLE
from semtransforms.photographs.journey import plan_photographs

HERE = Path(__file__).parent
MINUTES = 20
MOST_MINUTES = {True: 24 * 60, False: 30}  # on a machine of one's own; where others wait
TICK_SECONDS = 2
DEFAULT = Wish()

_HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_SEEN: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


def theme() -> gr.themes.Base:
    """Gradio's parts in the colours of the stylesheet, with fonts of the system: none is asked for elsewhere."""
    colours = {
        "body_background_fill": "var(--paper)", "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--muted)", "background_fill_primary": "var(--paper)",
        "background_fill_secondary": "var(--panel)", "block_background_fill": "var(--paper)",
        "block_border_color": "var(--rule)", "block_label_text_color": "var(--ink)",
        "block_title_text_color": "var(--ink)", "block_info_text_color": "var(--muted)",
        "border_color_primary": "var(--rule)",
        "input_background_fill": "var(--paper)", "input_border_color": "var(--muted)", "color_accent": "var(--link)",
        "slider_color": "var(--link)", "link_text_color": "var(--link)",
        "button_primary_background_fill": "var(--link)", "button_primary_background_fill_hover": "var(--link)",
        "button_primary_text_color": "var(--paper)", "button_secondary_background_fill": "var(--panel)",
        "button_secondary_background_fill_hover": "var(--b1)", "button_secondary_text_color": "var(--ink)",
        "checkbox_background_color": "var(--paper)", "checkbox_label_background_fill": "var(--panel)",
        "checkbox_label_text_color": "var(--ink)", "checkbox_border_color": "var(--muted)",
    }  # fmt: skip
    both = colours | {f"{name}_dark": value for name, value in colours.items() if name != "color_accent"}
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
    base = gr.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"], radius_size="none", spacing_size="md")
    return base.set(**both)


def head() -> str:
    """What stands in the page's head: one stylesheet for report and page, and the script."""
    style = STYLE.read_text(encoding="utf-8") + (HERE / "page.css").read_text(encoding="utf-8")
    unlisted = '<meta name="robots" content="noindex">'  # where others reach it, too, no search engine should
    return f"{unlisted}<style>{style}</style><script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>"


class Page:
    """The parts of the page that change, and their handlers.

    Args:
        visitors: who use it.
    """

    def __init__(self, visitors: Visitors) -> None:
        self.visitors = visitors
        with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=(60, 60)) as self.blocks:
            # the key is no secret: it lies in the browser beside what it locks
            self.browser = gr.BrowserState(None, storage_key="semtransforms", secret="semtransforms")
            self.token = gr.State(None)
            self.timer = gr.Timer(TICK_SECONDS, active=False)
            gr.HTML(showing.intro(visitors))
            self._lay_out_bringing()
            self._lay_out_looking()
            self._lay_out_protecting()
            self.verdict = gr.HTML()
            self.take = gr.HTML()
            self.delete = gr.Button(texts.DELETE, variant="secondary", elem_id="delete")
            self.deleted = gr.HTML(texts.DELETE_HELP)
            self._listen()

    def _lay_out_bringing(self) -> None:
        self.bring = gr.HTML()
        self.found = gr.HTML()
        self.arrived = gr.Button(texts.FOUND, visible="hidden", elem_id="arrived")
        self.again = gr.Button(texts.REMOVE_ALL, size="sm", elem_id="again")

    def _lay_out_looking(self) -> None:
        gr.HTML(f'<h2 id="look-h">{texts.LOOK}</h2><p>{texts.LOOK_HELP}</p>')
        with gr.Row():
            self.photograph = gr.Dropdown([], label=texts.PHOTOGRAPH, min_width=280, elem_id="photograph")
            self.rho_u = gr.Slider(
                1, 16, DEFAULT.rho_u, step=1, label=texts.STRENGTH, info=texts.STRENGTH_HELP, min_width=280,
                elem_id="rho-u",
            )  # fmt: skip
            self.visibility = gr.Slider(
                0, 1, DEFAULT.visibility, step=0.05, label=texts.VISIBILITY, info=texts.VISIBILITY_HELP,
                min_width=280, elem_id="visibility",
            )  # fmt: skip
        self.shown = gr.HTML()

    def _lay_out_protecting(self) -> None:
        gr.HTML(f'<h2 id="protect-h">{texts.PROTECT}</h2>')
        with gr.Row():
            self.minutes = gr.Number(
                MINUTES,
                minimum=0.05,
                maximum=MOST_MINUTES[self.visitors.keeps],
                label=texts.MINUTES,
                info=texts.MINUTES_HELP,
                elem_id="minutes",
            )
            self.format = gr.Radio(list(texts.FORMATS), value=DEFAULT.format, label=texts.FORMAT, elem_id="format")
            self.quality = gr.Slider(75, 100, 90, step=1, label=texts.QUALITY, visible=False, elem_id="quality")
        with gr.Row():
            self.plan = gr.Button(texts.PLAN, elem_id="plan")
            self.start = gr.Button(texts.START, variant="primary", elem_id="start")
            self.stop = gr.Button(texts.STOP, variant="stop", interactive=False, elem_id="stop")
        self.work = gr.HTML()

    @property
    def _wish(self) -> list[Any]:
        return [self.rho_u, self.visibility, self.format, self.quality]

    @property
    def _progress(self) -> list[Any]:
        """What changes while a protection goes on."""
        return [self.work, self.timer, self.plan, self.start, self.stop]

    @property
    def _results(self) -> list[Any]:
        return [self.verdict, self.take, self.shown]

    @property
    def _ticked(self) -> list[Any]:
        return [*self._progress, *self._results]

    def _listen(self) -> None:
        look, seen = [self.token, self.photograph, *self._wish], [self.found, self.photograph]
        whole = [self.bring, *seen, *self._progress, self.verdict, self.take]
        entered = self.blocks.load(self.enter, [self.browser], [self.browser, self.token, *whole], **_HIDDEN)
        entered.then(self.look, look, self.shown, **_HIDDEN)
        self.blocks.unload(self.leave)
        for button, act in ((self.arrived, self.arrive), (self.again, self.clear)):
            button.click(act, [self.token], seen, **_HIDDEN).then(self.look, look, self.shown, **_HIDDEN)
        self.photograph.input(self.look, look, self.shown, trigger_mode="always_last", **_HIDDEN)
        for control in (self.rho_u, self.visibility, self.format, self.quality):
            control.change(self.look, look, self.shown, trigger_mode="always_last", **_HIDDEN)
        self.format.change(lambda form: gr.update(visible=form == "jpeg"), self.format, self.quality, **_HIDDEN)
        order = [self.token, self.minutes, *self._wish]
        self.plan.click(self.make_plan, order, self.work, **_SEEN)
        self.start.click(self.begin, order, self._progress, **_HIDDEN)
        self.stop.click(self.end, [self.token], self._progress, **_HIDDEN)
        self.timer.tick(self.tick, look, self._ticked, **_HIDDEN)
        self.delete.click(self.forget, [self.token], [self.deleted, *whole], **_HIDDEN)

    def enter(self, token: str | None, request: gr.Request) -> list[Any]:
        """A page is loaded, for the first time or again."""
        try:
            visitor = self.visitors.enter(token, str(request.session_hash))
        except ValueError as error:
            raise _said(error) from error
        return [visitor.token, visitor.token, *self._everything(visitor)]

    def _visitor(self, token: str | None) -> Visitor:
        """Whose page it is; who was away for too long is told so."""
        try:
            return self.visitors.get(token)
        except ValueError as error:
            raise _said(error) from error

    def leave(self, request: gr.Request) -> None:
        """A page is closed."""
        self.visitors.leave(str(request.session_hash))

    def arrive(self, token: str | None) -> list[Any]:
        """Something was brought, or got its class."""
        visitor = self._visitor(token)
        visitor.sort_in()
        return self._found(visitor)

    def clear(self, token: str | None) -> list[Any]:
        """Begin anew."""
        visitor = self._visitor(token)
        if not visitor.is_busy:
            visitor.forget_brought()
        return self._found(visitor)

    def look(
        self, token: str | None, row: int | None, rho_u: float, visibility: float, form: str, quality: float
    ) -> str:
        """Show a photograph."""
        visitor = self._visitor(token)
        if row is None or not visitor.classes:
            return showing.shown(visitor, None)
        try:
            with visitor.lock:
                return showing.shown(visitor, looking.show(visitor, row, _wish(rho_u, visibility, form, quality)))
        except (ValueError, OSError) as error:
            return showing.shown(visitor, None, str(error))
        finally:
            give_back_freed_memory()  # the worker needs it

    def make_plan(self, token: str | None, minutes: float, *wish: Any) -> str:
        """Say what would be done, and how long it would take."""
        visitor, wanted = self._visitor(token), _wish(*wish)
        if visitor.is_busy:
            return showing.work(visitor, [])
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", UserWarning)
                lines = plan_photographs(
                    visitor.photographs, visitor.published(wanted), minutes=minutes, private=visitor.private(wanted),
                    rho_u=wanted.rho_u / 255, format=wanted.format, quality=wanted.quality,
                )  # fmt: skip
        except (ValueError, OSError) as error:
            return showing.work(visitor, [], str(error))
        finally:
            give_back_freed_memory()
        return showing.work(visitor, lines + [texts.WARNED.format(text=each.message) for each in warned])

    def begin(self, token: str | None, minutes: float, *wish: Any) -> list[Any]:
        """Protect, or go on with it."""
        visitor = self._visitor(token)
        if not visitor.is_busy:
            visitor.protect(_wish(*wish), minutes, self.visitors.worker, self.visitors.turn)
        return self._state(visitor)

    def end(self, token: str | None) -> list[Any]:
        """Stop it."""
        visitor = self._visitor(token)
        if visitor.job is not None:
            visitor.job.stop()
        return self._state(visitor)

    def tick(self, *looked_at: Any) -> list[Any]:
        """Some seconds have passed."""
        try:
            visitor = self._visitor(looked_at[0])
        except gr.Error as error:  # once, not every two seconds
            gr.Warning(error.message, duration=None)
            return [gr.update(active=False) if part is self.timer else gr.skip() for part in self._ticked]
        if visitor.is_busy:
            return [*self._state(visitor), gr.skip(), gr.skip(), gr.skip()]
        return [*self._state(visitor), *self._learned(visitor), self.look(*looked_at)]

    def forget(self, token: str | None) -> list[Any]:
        """Delete everything."""
        visitor = self._visitor(token)
        visitor.forget_all()
        return [texts.DELETED, *self._everything(visitor)]

    def _everything(self, visitor: Visitor) -> list[Any]:
        return [showing.bring(visitor), *self._found(visitor), *self._state(visitor), *self._learned(visitor)]

    def _found(self, visitor: Visitor) -> list[Any]:
        told = showing.found(visitor)
        try:
            rows: Sequence[tuple[str, int]] = looking.choices(looking.find(visitor)) if visitor.classes else []
        except (ValueError, OSError):  # which is told
            rows = []
        return [told, gr.update(choices=rows, value=rows[0][1] if rows else None)]

    def _learned(self, visitor: Visitor) -> list[Any]:
        return [showing.verdict(visitor), showing.take(visitor, self.visitors)]

    def _state(self, visitor: Visitor) -> list[Any]:
        busy = visitor.is_busy
        buttons = [gr.update(interactive=not busy), gr.update(interactive=not busy), gr.update(interactive=busy)]
        return [showing.work(visitor, []), gr.update(active=busy), *buttons]


def _said(error: ValueError) -> gr.Error:
    """An error whose words are shown, and stay: of others Gradio shows none."""
    return gr.Error(str(error), duration=None, print_exception=False)


def _wish(rho_u: float, visibility: float, form: str, quality: float) -> Wish:
    return Wish(round(rho_u), visibility, form, round(quality) if form == "jpeg" else None)
