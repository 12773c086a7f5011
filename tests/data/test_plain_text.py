"""Markup, entities and wrong encodings go; what only looks like them stays."""

from msmrec.data.plain_text import plain


def test_plain() -> None:
    assert plain("Black &amp;amp; White  &lt;b&gt;Cats&lt;/b&gt;") == "Black & White Cats"
    assert plain('<span class="a"><script>var a = 1 < 2;</script>Tea <br/>pot') == "Tea pot"
    assert plain("espÃ\xadritus") == "espíritus" and plain("braÃ\x83Â§os") == "braços"  # once and twice
    assert plain("Ã propos: 3 < 5, café") == "Ã propos: 3 < 5, café"
