"""The panel at which a person rates a session's pairs, with mouse or keys."""

import html
from collections.abc import Mapping, Sequence

from alignlab.errors import AlignlabError
from alignlab.plots.explorers import as_html, html_table
from alignlab.plots.rating import CHOICES, BlindPair, Prefer, RatingSession, digest

BUTTONS = {  # name: what it says, its style, what it is for
    "left": ("← left is better", "primary", "key: ← or a"),
    "tie": ("about equal", "", "key: t"),
    "right": ("right is better →", "primary", "key: → or b"),
    "undo": ("undo", "", "take the last rating back; key: u"),
    "skip": ("skip", "", "no opinion; key: s"),
    "reveal": ("reveal which was which", "success", "once all pairs are rated"),
}

STYLE = """<style>
.alignlab-rating { padding: 12px 16px; max-width: 960px; border-radius: 8px;
  border: 1px solid var(--jp-border-color2, #ccc); }
.alignlab-rating .widget-html-content { line-height: 1.4; height: auto; font-size: 14px;
  color: var(--jp-ui-font-color1, inherit); }
.alignlab-rating button { width: auto; border-radius: 6px; }
.alignlab-rating :is(.rate-left, .rate-tie, .rate-right) { flex: 1 1 0; height: 38px;
  font-size: 15px; }
.alignlab-rating .rate-reveal { margin-left: auto; }
.rating-line { display: flex; justify-content: space-between; opacity: 0.75; }
.rating-track { height: 6px; margin: 4px 0 14px; border-radius: 3px;
  background: var(--jp-layout-color3, #ddd); }
.rating-track div { height: 6px; border-radius: 3px; background: #0072B2; }
.alignlab-rating p.rating-prompt { margin: 12px 0; font-size: 20px; font-weight: 600; }
.rating-cards { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
.rating-card { min-height: 7em; padding: 12px 16px; border-radius: 8px;
  font-size: 17px; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere;
  color: var(--jp-ui-font-color0, #000); background: var(--jp-layout-color2, #f5f5f5);
  border: 1px solid var(--jp-border-color2, #ccc); }
.rating-card small { display: block; opacity: 0.75; }
.rating-keys { padding: 8px 12px; border: 2px dashed; border-radius: 6px;
  cursor: pointer; }
.rating-keys kbd { padding: 0 6px; border: 1px solid; border-radius: 4px;
  color: inherit; background: none; font-family: inherit; }
.rating-keys .on { display: none; font-weight: 600; color: #009E73; }
.alignlab-rating[data-keys]:focus-within .rating-keys {
  border: 2px solid #009E73; outline: none; }
.alignlab-rating[data-keys]:focus-within .on { display: inline; }
.alignlab-rating[data-keys]:focus-within .off { display: none; }
.rating-scale { position: relative; height: 18px; margin: 6px 0;
  border-bottom: 1px solid var(--jp-border-color1, #999); }
.rating-scale div { position: absolute; }
.alignlab-rating :is(td, th) { padding: 4px 12px 8px 0; }
.alignlab-rating p { margin: 8px 0; }
.rating-fault { color: #D55E00; font-weight: 600; }
</style>"""

# Keys press the buttons, so that there is one way to rate. The shortcuts of JupyterLab
# ("a" and "b" insert cells) are off while the focus is within the panel.
LISTEN = """const panel = this.closest('.alignlab-rating');
if (!panel.dataset.keys) {
  panel.dataset.keys = 'on';
  panel.dataset.lmSuppressShortcuts = 'true';
  const names = {ArrowLeft: 'left', a: 'left', ArrowRight: 'right', b: 'right',
    t: 'tie', s: 'skip', u: 'undo'};
  panel.addEventListener('keydown', event => {
    const name = names[event.key];
    if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) panel.querySelector('.rate-' + name).click();
  });
}"""

KEYS = (
    f'<div class="rating-keys" tabindex="0" onfocus="{html.escape(LISTEN)}">'
    '<span class="off"><b>Click here to rate with keys</b> (where this line does not '
    'turn green, use the buttons): </span><span class="on">Keys are on: </span>'
    "<kbd>←</kbd> or <kbd>a</kbd> left · <kbd>→</kbd> or <kbd>b</kbd> right · "
    "<kbd>t</kbd> about equal · <kbd>s</kbd> skip · <kbd>u</kbd> undo</div>"
)

HOW = (
    "<p><b>How to rate.</b> Run this notebook and its buttons appear here. Read the "
    "prompt and both replies, then say which one you would rather have been given: the "
    "left, the right, or neither. Which system wrote which is shown once all {n} pairs "
    "are rated. Here are {shown} of them.</p>"
)


class RatingPanel:
    """Buttons around the current pair; below it what the ratings say so far. For the
    last line of a cell; where no widget can run, some pairs and how to rate them stay.

    Args:
        session: what is rated.
        judges: by the name of each, whom else to ask; what they prefer is shown beside
            the rater's choices at the end.

    Attributes:
        buttons: by name, see ``BUTTONS``.
        panel: the widget that holds everything.
    """

    def __init__(
        self, session: RatingSession, judges: Mapping[str, Prefer] | None = None
    ):
        import ipywidgets

        self.session, self.judges = session, judges or {}
        self._name = f"rating-{digest(session.pairs)[:12]}"
        self.buttons = {name: self._button(name) for name in BUTTONS}
        self.pair, self.so_far = ipywidgets.HTML(), ipywidgets.HTML()
        rows = [
            ipywidgets.HBox([self.buttons[name] for name in row])
            for row in (("left", "tie", "right"), ("undo", "skip", "reveal"))
        ]
        self.controls = ipywidgets.VBox([*rows, ipywidgets.HTML(STYLE + KEYS)])
        self.panel = ipywidgets.VBox([self.pair, self.controls, self.so_far])
        self.panel.add_class("alignlab-rating").add_class(self._name)
        self._draw()

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(self.panel)
        # The still table shows where no panel of these pairs is on the page.
        name, table = self._name, still_table(self.session.pairs)
        hide = f"body:has(.{name}) .still-{name} {{ display: none }}"
        display(HTML(f'<style>{hide}</style><div class="still-{name}">{table}</div>'))

    def _button(self, name: str):
        import ipywidgets

        says, style, tooltip = BUTTONS[name]
        button = ipywidgets.Button(
            description=says, button_style=style, tooltip=tooltip
        )
        button.add_class(f"rate-{name}")
        button.on_click(lambda _: self._press(name))
        return button

    def _press(self, name: str) -> None:
        actions = {"undo": self.session.undo, "reveal": self.session.reveal}
        try:
            actions.get(name, lambda: self.session.rate(name))()
        except AlignlabError as error:  # JupyterLab shows no error of a button
            self._draw(fault=str(error))
        else:
            self._draw()

    def _draw(self, fault: str = "") -> None:
        session = self.session
        self.pair.value = _pair_card(session)
        self.so_far.value = _so_far(session, fault)
        if session.revealed:
            self.so_far.value += _revealed_table(session, self.judges)
        for name in CHOICES:
            self.buttons[name].disabled = session.done
        self.buttons["undo"].disabled = not session.ratings or session.revealed
        self.buttons["reveal"].disabled = not session.done
        self.controls.layout.display = "none" if session.revealed else None


def still_table(pairs: Sequence[BlindPair], most: int = 3) -> str:
    """HTML of the first pairs and of how to rate them; it names no system."""
    rows = [
        [f"<b>{as_html(pair.prompt)}</b>", as_html(pair.left), as_html(pair.right)]
        for pair in pairs[:most]
    ]
    table = html_table(("prompt", "left", "right"), rows)
    return HOW.format(n=len(pairs), shown=len(rows)) + table


def _pair_card(session: RatingSession) -> str:
    place, n, pair = len(session.ratings), len(session.pairs), session.current
    now = "all rated" if pair is None else f"pair {place + 1} of {n}"
    head = (
        '<div class="rating-line"><span>Which reply would you rather be given?</span>'
        f'<span>{now}</span></div><div class="rating-track">'
        f'<div style="width:{place / n:.1%}"></div></div>'
    )
    if session.revealed:
        return head
    if pair is None:
        return head + (
            '<p class="rating-prompt">That was the last pair. Undo what you want to '
            "change, then reveal which system wrote which.</p>"
        )
    return head + (
        f'<p class="rating-prompt">{as_html(pair.prompt)}</p><div class="rating-cards">'
        f'<div class="rating-card"><small>left</small>{as_html(pair.left)}</div>'
        f'<div class="rating-card"><small>right</small>{as_html(pair.right)}</div>'
        "</div>"
    )


def _revealed_table(session: RatingSession, judges: Mapping[str, Prefer]) -> str:
    without_side = {"tie": "about equal", "skip": "skipped"}
    asked = {name: _asked(session, prefer) for name, prefer in judges.items()}
    rows = []
    for place, (pair, choice) in enumerate(zip(session.pairs, session.ratings)):
        left, right = pair.sides
        preferred = {"left": left, "right": right, **without_side}[choice]
        rows.append(
            [
                as_html(pair.prompt),
                f"<b>{as_html(left)}</b><br>{as_html(pair.left)}",
                f"<b>{as_html(right)}</b><br>{as_html(pair.right)}",
                f"<b>{as_html(preferred)}</b>",
                *(_verdict(pair, chances[place]) for chances in asked.values()),
            ]
        )
    head = ["prompt", "left", "right", "you preferred", *map(as_html, judges)]
    agreement = "".join(
        f"<p>{_agreement(session, name, chances)}</p>"
        for name, chances in asked.items()
    )
    return agreement + html_table(head, rows)


def _asked(session: RatingSession, prefer: Prefer) -> list[float]:
    """How probably a judge prefers the left reply of each pair."""
    return [prefer(pair.prompt, pair.left, pair.right) for pair in session.pairs]


def _verdict(pair: BlindPair, chance: float) -> str:
    if chance == 0.5:
        return "about equal"
    left, right = pair.sides
    return f"{as_html(left if chance > 0.5 else right)} ({max(chance, 1 - chance):.0%})"


def _agreement(session: RatingSession, name: str, chances: Sequence[float]) -> str:
    """In how many of the pairs where both prefer a reply it is the same one."""
    same = [
        (choice == "left") == (chance > 0.5)
        for choice, chance in zip(session.ratings, chances, strict=True)
        if choice in ("left", "right") and chance != 0.5
    ]
    return (
        f"Where you both preferred a reply, {as_html(name)} preferred yours in "
        f"{sum(same)} of {len(same)} pairs."
    )


def _so_far(session: RatingSession, fault: str) -> str:
    alarm = f'<p class="rating-fault">{as_html(fault)}</p>' if fault else ""
    scales = _scales(session) if session.wins().any() else ""
    return f"{alarm}{scales}<p>{as_html(session.summary())}</p>"


def _scales(session: RatingSession) -> str:
    """Each system's win rate with its interval, on a line from 0 to 1."""
    called = session.called()
    lines = []
    for name in list(called)[1:]:
        rate = session.win_rate(name)
        lines.append(
            '<div class="rating-scale">'
            f'<div style="left:{rate.low:.1%};width:{rate.high - rate.low:.1%};top:7px;'
            'height:6px;background:#56B4E9;border-radius:3px"></div>'
            '<div style="left:50%;top:0;height:18px;border-left:1px dashed #999"></div>'
            f'<div style="left:calc({rate.value:.1%} - 6px);top:4px;width:12px;'
            'height:12px;border-radius:6px;background:#0072B2"></div></div>'
            f'<div class="rating-line"><span>never {as_html(called[name])}</span>'
            f"<span>always {as_html(called[name])}</span></div>"
        )
    return "".join(lines)
