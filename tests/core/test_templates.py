"""Templates: what is filled in stays text, and nothing is left out in silence."""

import pytest
from jinja2 import UndefinedError

from semtransforms.core.templates import fill


def test_a_value_stays_text_in_html_and_as_it_is_in_markdown(tmp_path):
    """Unescaped, a name on a page is run by the browser; escaped, a Markdown file shows ``&lt;``."""
    (tmp_path / "page").write_text("<p>{{ name }}</p>\n", encoding="utf-8")
    assert fill(tmp_path / "page", escape=True, name="<b>&ρ") == "<p>&lt;b&gt;&amp;ρ</p>\n"
    assert fill(tmp_path / "page", escape=False, name="<b>&ρ") == "<p><b>&ρ</p>\n"


def test_a_value_that_is_not_given_is_an_error(tmp_path):
    """Jinja writes nothing in its place: a card without its radius."""
    (tmp_path / "card").write_text("radius {{ rho_u }}\n", encoding="utf-8")
    with pytest.raises(UndefinedError, match="rho_u"):
        fill(tmp_path / "card", escape=False)
