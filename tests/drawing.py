"""What tests of figures share: the notebooks' style, and how to read a figure."""

import warnings
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from alignlab.plots import explorers, use_style

matplotlib.use("Agg")


@pytest.fixture
def style():
    """As in a notebook; a figure that cannot be drawn cleanly is an error."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error")
        use_style()
        yield
    plt.close("all")


def drawn(figure):
    """Draw it; every panel has a title or says what its y axis is."""
    figure.canvas.draw()
    assert all(axes.get_title(loc="left") or axes.get_ylabel() for axes in figure.axes)
    return figure


def labelled(figure):
    """Draw it; every panel has a title and says what its axes are."""
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_title(loc="left")
        labels = axes.get_xlabel(), axes.get_ylabel()
        assert any(labels)
        for axis, label in zip((axes.xaxis, axes.yaxis), labels):
            shared = axes is not figure.axes[0] and axes.get_shared_y_axes()
            named = any(text.strip("0123456789.−\n") for text in ticks(axis))
            assert label or named or shared, "an axis of bare numbers needs a label"
    return figure


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def points(axes, marker=None):
    """Data of the axes' lines, of one marker or of all."""
    lines = [x for x in axes.lines if marker is None or x.get_marker() == marker]
    return [(np.asarray(x.get_xdata()), np.asarray(x.get_ydata())) for x in lines]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


class Explorer:
    """What an explorer displayed: its controls, and what stands below them now."""

    def __init__(self):
        self.controls, self.pictures = [], []

    def display(self, thing, display_id=False):
        if not display_id:
            self.controls.extend(thing.children)
            return None
        place = len(self.pictures)
        self.pictures.append(thing)
        return SimpleNamespace(update=lambda new: self.replace(place, new))

    def replace(self, place, picture):
        if isinstance(self.pictures[place], plt.Figure):
            plt.close(self.pictures[place])
        self.pictures[place] = picture


@pytest.fixture
def explorer(monkeypatch):
    """In place of a notebook's front end, with figures and HTML as they were made."""
    from IPython import display

    made = Explorer()
    monkeypatch.setattr(display, "display", made.display)
    monkeypatch.setattr(explorers, "still", lambda picture: picture)
    return made
