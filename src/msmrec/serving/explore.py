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
from msmrec.serving.rank import Histories

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
    """Serves a page; system fonts alone, and nothing of the net."""
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
    state = _State(run, click, pictures)
    return _blocks(state, run)


class _State:
    """What the page's callbacks ask; the browser holds the user, this holds nothing of anybody."""

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

    def histories(self, who: dict[str, Any]) -> Histories:
        """Of the user that the browser holds."""
        return self.explainer.liked(who["items"]) if who["new"] else self.explainer.user(who["user"])

    def why(self, who: dict[str, Any], k: float, genres: list[str], years: tuple[Any, Any], gate: Any) -> Explanation:
        """The list and its reasons; see Explainer.explain.

        Args:
            years: bounds; one that is empty or at the end of the catalogue is none, and items without a year pass it.
        """
        first, last = self.years or (0, 0)
        year_from = int(years[0]) if years[0] and years[0] > first else None
        year_to = int(years[1]) if years[1] and years[1] < last else None
        allowed = self.explainer.recommender.allowed(genres or [], year_from, year_to)
        return self.explainer.explain(self.histories(who), int(k), allowed, gate)


def _blocks(state: _State, run: OpenRun) -> Any:
    gr = _gradio()
    explainer, page = state.explainer, state.page
    about = f"{type(run.model).__name__} on {run.data.dataset.info['name']}"
    titles = list(zip(explainer.recommender.items[TITLE].to_list(), range(1, len(page.rows) + 1), strict=True))
    new_users, modalities = explainer.recommender.serves_new_users, page.modalities
    with gr.Blocks(title=f"MSMRec: {about}", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {about}")
        who = gr.State({"new": False, "user": state.first, "items": []})
        with gr.Row(elem_id="everything"):
            with gr.Column(scale=1, min_width=300, elem_id="who"):
                with gr.Tabs():
                    with gr.Tab("A user of the data"):
                        user = gr.Textbox(state.first, label="User id", max_lines=1, elem_id="user")
                        with gr.Row():
                            show = gr.Button("Show", variant="primary", min_width=80)
                            anyone = gr.Button("Any user", min_width=80)
                    with gr.Tab("Somebody new", visible=new_users):
                        liked = gr.Dropdown(
                            titles, label="Items that they liked, oldest first: type to search", multiselect=True,
                            elem_id="liked",
                        )  # fmt: skip
            with gr.Column(scale=1, min_width=300, elem_id="how"):
                with gr.Accordion("Which items", open=True):
                    k = gr.Slider(5, 50, 10, step=1, label="How many", elem_id="k", buttons=[])
                    genres = gr.Dropdown(
                        explainer.recommender.genres(), label="Genres (any of)", multiselect=True, elem_id="genres"
                    )
                    with gr.Row(visible=state.years is not None):
                        first, last = state.years or (0, 0)  # an empty number would be sent as 0
                        year_from = gr.Number(first, label="From year", precision=0, min_width=80)
                        year_to = gr.Number(last, label="To year", precision=0, min_width=80)
                sliders = []
                with gr.Accordion("Gate: what each modality weighs", open=True, visible=bool(modalities)):
                    gr.Markdown("The user's own gate sums to 1. Moved weights are used as they are, in scoring.")
                    own = gr.Button("Back to the user's own gate", size="sm", visible=bool(modalities))
                    for name in modalities:
                        sliders.append(gr.Slider(0, 1, 0, step=0.01, label=name, elem_classes="mm-gate", buttons=[]))
            with gr.Column(scale=3, min_width=300, elem_id="what"):
                said = gr.HTML(message(""), elem_id="said")
                gr.Markdown("## Recommended")
                shown = gr.HTML(elem_id="shown")
                gr.Markdown("## Why")
                reasons = gr.HTML(elem_id="why")
                gr.Markdown("## History")
                history = gr.HTML(elem_id="history")
                asked = gr.Dropdown([], label="Item", elem_id="asked", visible=state.clicks is not None)
                ask = gr.Button("Ask the click model", visible=state.clicks is not None)
                answer = gr.HTML(elem_id="answer", visible=state.clicks is not None)
                prompt = gr.Textbox(label="Prompt", lines=6, interactive=False, visible=state.clicks is not None)
        filters: list[Any] = [k, genres, year_from, year_to]
        outputs = [said, shown, reasons, history, asked]

        def rendered(given: dict[str, Any], chosen: tuple[Any, ...], gate: list[float] | None) -> tuple[list[Any], Any]:
            """Values of `outputs`, and the gate that was used, None where nothing could be shown."""
            count, wanted, first, last = chosen
            try:
                why = state.why(given, count, wanted, (first, last), gate)
            except InputError as error:
                return [message(str(error)), *[gr.skip() for _ in outputs[1:]]], None
            name = "Somebody new" if given["new"] else f"User {given['user']}"
            choices = [(page.title(item), state.raw_items[item - 1]) for item in why.items.tolist()]
            asks = gr.update(choices=choices, value=choices[0][1] if choices else None)
            line = f"{name}: a history of {len(why.history)}."
            return [message(line), page.recommendations(why), page.reasons(why), page.history(why), asks], why.gate

        def anew(given: dict[str, Any], *chosen: Any) -> list[Any]:
            """Under the user's own gate."""
            values, gate = rendered(given, chosen, None)
            weights = [gr.skip() for _ in sliders] if gate is None else [round(float(weight), 3) for weight in gate]
            return [*values, *weights]

        def again(given: dict[str, Any], *chosen: Any) -> list[Any]:
            """Under the gate of the sliders."""
            gate = [float(weight) for weight in chosen[len(filters) :]] or None
            return rendered(given, chosen[: len(filters)], gate)[0]

        def pick(raw: str, *chosen: Any) -> list[Any]:
            given = {"new": False, "user": str(raw).strip(), "items": []}
            return [given, *anew(given, *chosen)]

        def pick_any(*chosen: Any) -> list[Any]:
            raw = random.choice(state.users)
            return [raw, *pick(raw, *chosen)]

        def likes(items: list[int], *chosen: Any) -> list[Any]:
            given = {"new": True, "user": "", "items": list(items or [])}
            return [given, *anew(given, *chosen)]

        def about_item(given: dict[str, Any], raw_item: Any) -> tuple[str, str]:
            assert state.clicks is not None
            try:
                mine = [state.raw_items[item - 1] for item in given["items"]]
                told = state.clicks.ask(None if given["new"] else given["user"], mine, raw_item)
            except InputError as error:
                return message(str(error)), ""
            return message(f"P(click) = {told.click:.3f}"), told.prompt

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        latest: dict[str, Any] = {**quiet, "trigger_mode": "always_last"}
        everything = [*outputs, *sliders]
        blocks.load(anew, [who, *filters], everything, **quiet)
        gr.on([show.click, user.submit], pick, [user, *filters], [who, *everything], **quiet)
        anyone.click(pick_any, filters, [user, who, *everything], **quiet)
        liked.input(likes, [liked, *filters], [who, *everything], **latest)
        own.click(anew, [who, *filters], everything, **quiet)
        moved = [slider.input for slider in sliders] + [k.input, genres.input, year_from.change, year_to.change]
        gr.on(moved, again, [who, *filters, *sliders], outputs, **latest)
        ask.click(about_item, [who, asked], [answer, prompt], **quiet)
    return blocks


def _gradio() -> Any:
    """Gradio, with everything off that would ask the net."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    try:
        import gradio
    except ImportError:
        raise InputError("explore needs gradio: pip install 'msmrec[explore]'") from None
    return gradio
