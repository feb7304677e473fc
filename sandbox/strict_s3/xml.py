"""Amazon's XML: written from nested lists of pairs, and read without its namespace."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
Content = str | Sequence[tuple[str, "Content"]]


def document(root: str, content: Content, *, namespace: str = NAMESPACE) -> bytes:
    """A whole document: `document("Error", [("Code", "NoSuchKey")], namespace="")`."""
    attribute = f' xmlns="{namespace}"' if namespace else ""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{attribute}>{_inner(content)}</{root}>'.encode()


def _inner(content: Content) -> str:
    if isinstance(content, str):
        return escape(content, {'"': "&quot;", "\r": "&#13;"})
    return "".join(f"<{name}>{_inner(inner)}</{name}>" for name, inner in content)


def parsed(body: bytes) -> ET.Element:
    """The document's root, names without namespace.

    Raises:
        ET.ParseError: it is none.
    """
    root = ET.fromstring(body)  # noqa: S314 - what a client of a test sends
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
