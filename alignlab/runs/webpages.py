"""Executed notebooks as HTML pages that load nothing: no script and no style comes from
elsewhere, formulas are MathML, and what a model wrote cannot run.
"""

import html
from pathlib import Path

import jinja2
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

# The browser then runs no script of the page, whatever is in a notebook's outputs.
POLICY = "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
POLICY += "font-src data:"
TEMPLATE = f"""{{% extends 'lab/index.html.j2' %}}
{{% block html_head_js %}}
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
{{% endblock %}}
{{% block jupyter_widgets %}}{{% endblock %}}
{{% block html_head_js_mathjax %}}{{% endblock %}}
{{% block html_head_js_mermaidjs %}}{{% endblock %}}
"""


def as_html(notebook: Path) -> str:
    """The page of an executed notebook, with its pictures inside."""
    templates = jinja2.DictLoader({"page.html.j2": TEMPLATE})
    exporter = _Exporter(
        embed_images=True, extra_loaders=[templates], template_file="page.html.j2"
    )
    return exporter.from_filename(str(notebook))[0]


class _Exporter(HTMLExporter):
    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        cell = context.get("cell", {})
        renderer = _Renderer(
            escape=False,
            attachments=cell.get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
        )
        return MarkdownWithMath(renderer=renderer).render(source)


class _Renderer(IPythonRenderer):
    """Markdown with formulas in MathML, which browsers show by themselves."""

    def inline_math(self, body: str) -> str:
        return in_mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return in_mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return in_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def in_mathml(formula: str, display: str) -> str:
    """A formula of LaTeX in MathML; as it is written if it cannot be converted.

    Args:
        display: "inline" or "block".
    """
    try:
        return convert(formula, display=display)
    except Exception:  # of several kinds; a page without one formula is still a page
        return f"<code>{html.escape(formula)}</code>"
