"""Texts of raw files without what web pages and wrong encodings left in them."""

import html
import re

TAG = re.compile(r"<(script|style)\b.*?(</\1>|$)|</?[A-Za-z][^<>]*>?|<!--.*?(-->|$)", re.DOTALL | re.IGNORECASE)
_MOJIBAKE = re.compile("[\u00c2-\u00f4][\u0080-\u00bf]")


def plain(text: str) -> str:
    """A text without markup, entities and double spaces, and with UTF-8 that was read as latin-1 read again."""
    if "&" in text:
        text = html.unescape(html.unescape(text))  # "&amp;amp;" is common
    if "<" in text:
        text = TAG.sub(" ", text)
    while _MOJIBAKE.search(text):  # some went wrong twice
        try:
            text = text.encode("latin-1").decode("utf-8")
        except UnicodeError:
            break  # it only looked so
    return " ".join(text.split())
