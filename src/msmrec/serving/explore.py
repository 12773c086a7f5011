"""`python -m msmrec explore`: a local page that shows what a model recommends to whom, and why (Gradio)."""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msmrec.artifacts import InputError
from msmrec.columns import RAW_ITEM_ID, RAW_USER_ID, TITLE, YEAR
from msmrec.data.root import find
from msmrec.run_folder import OpenRun
from msmrec.serving.ask_click import ClickAnswers
from msmrec.serving.explain import Explainer, Explanation
from msmrec.serving.page import CSS, Page, Posters, message

Open = Callable[[Path], OpenRun]


def serve(open_run: Open, run: Path, click: Path | None, posters: str, host: str, port: int) -> None:
    """Opens the run and serves its page until interrupted.

    Raises:
        InputError: no Gradio, a port in use, or a run that cannot be explored.
    """
    _gradio()
    refuse_used_port(host, port)
    page = explorer(open_run(run), open_run(click) if click else None, posters)
    print(f"{run}: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    try:
        launch(page, host, port)
    except KeyboardInterrupt:
        page.close(verbose=False)


def launch(page: Any, host: str, port: int, wait: bool = True) -> None:
    """Serves a page; with system fonts only, and nothing from the internet."""
    gr = _gradio()
    font = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(primary_hue="blue", font=font, font_mono=["ui-monospace", "monospace"])
    page.launch(
        server_name=host, server_port=port, share=False, quiet=True, css=CSS, theme=theme, footer_links=[],
        ssr_mode=False, prevent_thread_lock=not wait, inbrowser=False, enable_monitoring=False, show_error=False,
        run_history=False,
    )  # fmt: skip


def refuse_used_port(host: str, port: int) -> None:
    """Refuses a port that somebody listens on, or an address that is not this machine's.

    Raises:
        InputError: says which.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port} on {host} cannot be used ({error}); give another") from None


def explorer(run: OpenRun, click: OpenRun | None = None, posters: str = "posters/ml-1m") -> Any:
    """The page of a run, as gradio.Blocks."""
    try:
        pictures = Posters(find(posters, run.data.root, folder=True))
    except InputError:
        pictures = Posters(None)
    return _blocks(_Callbacks(run, click, pictures), run)


class _Callbacks:
    """What the page's inputs call; the browser holds the user, this holds nothing of anybody.

    `who` is the browser's user: whether new, the raw id, and what a new one liked. `filters` are the number of items,
    genres, and first and last year.
    """

    def __init__(self, run: OpenRun, click: OpenRun | None, pictures: Posters) -> None:
        self.explainer = Explainer(run)
        self.page = Page(self.explainer.recommender.items, pictures, self.explainer.modalities)
        self.clicks = ClickAnswers(click) if click else None
        self.raw_items = self.explainer.recommender.items[RAW_ITEM_ID].to_list()
        years = self.explainer.recommender.items[YEAR].drop_nulls()
        self.years = (years.min(), years.max()) if len(years) else None
        self.users = [str(raw) for raw in self.explainer.dataset.users[RAW_USER_ID].to_list()]
        self.first = next(u for u in self.users if self._has_history(u))
        self.explainer.explain(self.explainer.user(self.first), 10)  # the first one would wait for kernels otherwise

    def _has_history(self, raw: str) -> bool:
        try:
            self.explainer.user(raw)
        except InputError:
            return False
        return True

    def somebody(self, raw: str, *filters: Any) -> list[Any]:
        """A user of the data, and the page about them."""
        who = {"new": False, "user": str(raw).strip(), "items": []}
        return [who, *self.anew(who, *filters)]

    def anybody(self, *filters: Any) -> list[Any]:
        """The id of a user of the data, drawn at random, and what `somebody` says."""
        raw = random.choice(self.users)
        return [raw, *self.somebody(raw, *filters)]

    def newcomer(self, items: list[int], *filters: Any) -> list[Any]:
        """Somebody who is not in the data and liked these items, and the page about them."""
        who = {"new": True, "user": "", "items": list(items or [])}
        return [who, *self.anew(who, *filters)]

    def anew(self, who: dict[str, Any], *filters: Any) -> list[Any]:
        """The page under the user's own gate, and the gate's sliders."""
        page, gate = self._shown(who, filters, None)
        if gate is None:
            return [*page, *[_gradio().skip() for _ in self.page.modalities]]
        return [*page, *[round(float(weight), 3) for weight in gate]]

    def again(self, who: dict[str, Any], *filters_and_gate: Any) -> list[Any]:
        """The page under the gate of the sliders."""
        count = len(filters_and_gate) - len(self.page.modalities)
        gate = [float(weight) for weight in filters_and_gate[count:]] or None
        return self._shown(who, filters_and_gate[:count], gate)[0]

    def about_item(self, who: dict[str, Any], raw_item: Any) -> tuple[str, str]:
        """What the click model says of an item, and its prompt."""
        assert self.clicks is not None
        try:
            liked = [self.raw_items[item - 1] for item in who["items"]]
            told = self.clicks.ask(None if who["new"] else who["user"], liked, raw_item)
        except InputError as error:
            return message(str(error)), ""
        return message(f"P(click) = {told.click:.3f}"), told.prompt

    def _shown(self, who: dict[str, Any], filters: tuple[Any, ...], gate: list[float] | None) -> tuple[list[Any], Any]:
        """Message, list, reasons, history and choice of items, and the gate that was used.

        Where nothing can be shown, the message says why, and there is no gate.
        """
        gr = _gradio()
        try:
            why = self._explained(who, filters, gate)
        except InputError as error:
            return [message(str(error)), gr.skip(), gr.skip(), gr.skip(), gr.skip()], None
        name = "Somebody new" if who["new"] else f"User {who['user']}"
        choices = [(self.page.title(item), self.raw_items[item - 1]) for item in why.items.tolist()]
        asked = gr.update(choices=choices, value=choices[0][1] if choices else None)
        said = message(f"{name}: a history of {len(why.history)}.")
        page = self.page
        return [said, page.recommendations(why), page.reasons(why), page.history(why), asked], why.gate

    def _explained(self, who: dict[str, Any], filters: tuple[Any, ...], gate: list[float] | None) -> Explanation:
        """The list and its reasons; see Explainer.explain.

        A year that is empty or at the end of the catalogue is no bound, and items without a year pass it.
        """
        k, genres, first, last = filters
        oldest, newest = self.years or (0, 0)
        year_from = int(first) if first and first > oldest else None
        year_to = int(last) if last and last < newest else None
        allowed = self.explainer.recommender.allowed(genres or [], year_from, year_to)
        histories = self.explainer.liked(who["items"]) if who["new"] else self.explainer.user(who["user"])
        return self.explainer.explain(histories, int(k), allowed, gate)


def _blocks(call: _Callbacks, run: OpenRun) -> Any:
    """The page's inputs and outputs, and which input calls what."""
    gr = _gradio()
    recommender, modalities, asks = call.explainer.recommender, call.page.modalities, call.clicks is not None
    about = f"{type(run.model).__name__} on {run.data.dataset.info['name']}"
    titles = [(title, item) for item, title in enumerate(recommender.items[TITLE].to_list(), 1)]
    with gr.Blocks(title=f"MSMRec: {about}", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {about}")
        who = gr.State({"new": False, "user": call.first, "items": []})
        with gr.Row(elem_id="everything"):
            with gr.Column(scale=1, min_width=300, elem_id="who"):
                with gr.Tabs():
                    with gr.Tab("A user of the data"):
                        user = gr.Textbox(call.first, label="User id", max_lines=1, elem_id="user")
                        with gr.Row():
                            show = gr.Button("Show", variant="primary", min_width=80)
                            anyone = gr.Button("Any user", min_width=80)
                    with gr.Tab("Somebody new", visible=recommender.serves_new_users):
                        liked = gr.Dropdown(
                            titles, label="Items that they liked, oldest first: type to search", multiselect=True,
                            elem_id="liked",
                        )  # fmt: skip
            with gr.Column(scale=1, min_width=300, elem_id="how"):
                with gr.Accordion("Which items", open=True):
                    k = gr.Slider(5, 50, 10, step=1, label="How many", elem_id="k", buttons=[])
                    genres = gr.Dropdown(
                        recommender.genres(), label="Genres (any of)", multiselect=True, elem_id="genres"
                    )
                    with gr.Row(visible=call.years is not None):
                        first, last = call.years or (0, 0)  # an empty number would be sent as 0
                        year_from = gr.Number(first, label="From year", precision=0, min_width=80)
                        year_to = gr.Number(last, label="To year", precision=0, min_width=80)
                with gr.Accordion("Gate: what each modality weighs", open=True, visible=bool(modalities)):
                    gr.Markdown("The user's own gate sums to 1. Moved weights are used as they are, in scoring.")
                    own = gr.Button("Back to the user's own gate", size="sm", visible=bool(modalities))
                    sliders = [
                        gr.Slider(0, 1, 0, step=0.01, label=name, elem_classes="mm-gate", buttons=[])
                        for name in modalities
                    ]
            with gr.Column(scale=3, min_width=300, elem_id="what"):
                said = gr.HTML(message(""), elem_id="said")
                gr.Markdown("## Recommended")
                shown = gr.HTML(elem_id="shown")
                gr.Markdown("## Why")
                reasons = gr.HTML(elem_id="why")
                gr.Markdown("## History")
                history = gr.HTML(elem_id="history")
                asked = gr.Dropdown([], label="Item", elem_id="asked", visible=asks)
                ask = gr.Button("Ask the click model", visible=asks)
                answer = gr.HTML(elem_id="answer", visible=asks)
                prompt = gr.Textbox(label="Prompt", lines=6, interactive=False, visible=asks)
        filters: list[Any] = [k, genres, year_from, year_to]
        everything: list[Any] = [said, shown, reasons, history, asked, *sliders]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        latest: dict[str, Any] = {**quiet, "trigger_mode": "always_last"}
        blocks.load(call.anew, [who, *filters], everything, **quiet)
        gr.on([show.click, user.submit], call.somebody, [user, *filters], [who, *everything], **quiet)
        anyone.click(call.anybody, filters, [user, who, *everything], **quiet)
        liked.input(call.newcomer, [liked, *filters], [who, *everything], **latest)
        own.click(call.anew, [who, *filters], everything, **quiet)
        moved = [slider.input for slider in sliders] + [k.input, genres.input, year_from.change, year_to.change]
        gr.on(moved, call.again, [who, *filters, *sliders], [said, shown, reasons, history, asked], **latest)
        ask.click(call.about_item, [who, asked], [answer, prompt], **quiet)
    return blocks


def _gradio() -> Any:
    """Gradio, with everything off that would use the internet."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    try:
        import gradio
    except ImportError:
        raise InputError("explore needs gradio: pip install 'msmrec[explore]'") from None
    return gradio
