"""A page as a browser sees it."""

import html.parser

HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "footer"),
    *("h1", "h2", "h3", "p", "dl", "dt", "dd", "div", "a"),
}


class Seen(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, attributes, text and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        self.text = " | ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self.elements[-1:] == ["style"] and not self.style:
            self.style = data
        elif data.strip():
            self.words.append(data.strip())
