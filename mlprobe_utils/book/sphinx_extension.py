"""The book's Sphinx extension: notebooks as pages, formulas as MathML, definitions, downloads, keyboard access.

Notebooks are CommonMark, which every program for notebooks shows. What only a book has is added when a page is read: a
link to the glossary shows the definition, one to the bibliography becomes a citation, and the cell tagged `answer`, the
last that is computed, stands below the question."""

import html
import json
import re
import shutil
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import unquote

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from mlprobe_utils.book.book_pages import NOTEBOOKS, notebook_of
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.pipeline.code import code_hash

SCROLLING = 'class="pst-scrollable-table-container"'
ANSWER = "answer"
LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./book/)?([\w-]+)\.(?:md|ipynb)(?:#([\w-]+))?\)")
DEFINED = re.compile(r"^(\S.*)\n  \S", re.MULTILINE)  # a term of the glossary, above its indented definition
TABLE = re.compile(r'(<a download="([\w-]+)\.csv" href=")data:text/csv;charset=utf-8,([^"]*)')
PAYLOAD = re.compile(r'<script type="text/plain" class="explorer-data" data-name="([^"]+)">([^<]*)</script>')
EXPLORER = '<div class="explorer"'
TERM = re.compile(r'<a class="reference internal" href="([^"#]*)#(term-[^"]*)">')
logger = logging.getLogger(__name__)


def setup(app) -> dict:
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it for an extension that no page needs
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_formula, None))
    app.connect("source-read", make_page)
    app.connect("doctree-read", keep_definitions)
    app.connect("html-page-context", complete_body)
    app.connect("html-page-context", move_files)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", complete_buttons, priority=502)  # after the theme's own
    # when this code, a static file or a definition changes, all pages have to be rebuilt; Sphinx would not by itself
    shared = sorted(path for path in Path(app.confdir, "_static").rglob("*") if path.is_file())
    shared += Path(app.confdir).glob("glossary.md")
    version = hash_of([code_hash(__name__), [hash_of(path.read_bytes()) for path in shared]])
    return {"env_version": version, "parallel_read_safe": False}


def make_page(app, page: str, source: list[str]) -> None:
    """Turns the CommonMark of a notebook into the book's MyST, and puts its answer below its question."""
    if Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    notebook, terms = json.loads(source[0]), DEFINED.findall(Path(app.srcdir, "glossary.md").read_text())
    linked = partial(_role, app.env, {slug(term): term for term in terms}, "../" * page.count("/"))
    is_answer = lambda cell: ANSWER in cell["metadata"].get("tags", ())  # noqa: E731
    notebook["cells"][1:] = sorted(notebook["cells"][1:], key=is_answer, reverse=True)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = LINK.sub(linked, "".join(cell["source"]))
        for output in cell.get("outputs", ()):
            if text := output.get("data", {}).get("text/markdown"):
                output["data"]["text/markdown"] = LINK.sub(linked, "".join(text))
    source[0] = json.dumps(notebook)


def slug(term: str) -> str:
    """How a link to the glossary names a term: `image-token`."""
    return "-".join(term.lower().split())


def _role(env, terms: dict[str, str], up: str, link: re.Match) -> str:
    text, page, anchor = link.groups()
    if page == "glossary" and anchor:
        return f"{{term}}`{text} <{terms.get(anchor, anchor)}>`"  # a term that is not there is Sphinx's warning
    if page == "bibliography" and anchor:
        return f"{{cite:t}}`{anchor}`" if text.endswith(")") else f"{{cite:author}}`{anchor}`, {{cite:year}}`{anchor}`"
    return f"[{text}]({up}{env.doc2path(page, base=False)}{f'#{anchor}' if anchor else ''})"


def visit_formula(translator, node: nodes.math | nodes.math_block) -> None:
    """A formula as MathML, a displayed one with its number. What cannot be converted is a warning: the build fails."""
    tag, display = ("span", "inline") if isinstance(node, nodes.math) else ("div", "block")
    reached = {} if tag == "span" else {"tabindex": "0"}  # a wide one scrolls
    translator.body.append(translator.starttag(node, tag, "", CLASS="math", **reached))
    if node.get("number"):
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    try:
        formula = convert(node.astext(), display=display)
        wrong = [f"unknown command {name}" for name in re.findall(r">(\\\w+)<", formula)]  # passed on as a name
    except Exception as error:  # the converter's errors have no class of their own
        formula, wrong = "", [type(error).__name__]
    for problem in wrong:
        logger.warning(f"the formula {node.astext()!r} cannot be converted: {problem}", location=node)
    translator.body.append(f"{formula}</{tag}>")
    raise nodes.SkipNode


def keep_definitions(app, doctree: nodes.document) -> None:
    """Remembers the glossary's definitions as plain text, by the anchor of their term."""
    if found := {
        anchor: " ".join(item.next_node(nodes.definition).astext().split())
        for glossary in doctree.findall(addnodes.glossary)
        for item in glossary.findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for anchor in term["ids"]
    }:
        app.env.definitions = found


def complete_body(app, page: str, template: str, context: dict, doctree) -> None:
    """Gives terms their definitions, for a script to show, tables to the keyboard, and a bibliography list items."""
    body = context.get("body", "").replace(SCROLLING, f'{SCROLLING} tabindex="0"')
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    told = '<a class="reference internal told" href="{0[1]}#{0[2]}" data-told="{1}">'
    context["body"] = TERM.sub(lambda link: told.format(link, html.escape(app.env.definitions[link[2]])), body)


def move_files(app, page: str, template: str, context: dict, doctree) -> None:
    """Puts beside the page what a notebook carries inside itself and would make the page slow to load: CSV files, and
    the data of an explorer, as scripts, which a page can load from a disk as well."""
    place, numbers = f"_files/{page}", count(1)
    shutil.rmtree(folder := Path(app.outdir, place), ignore_errors=True)

    def moved(name: str, content: str) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, newline="")
        return context["pathto"](f"{place}/{name}", resource=True)

    def table(link: re.Match) -> str:
        return link[1] + moved(f"{next(numbers):02}-{link[2]}.csv", unquote(link[3]))

    def payload(script: re.Match) -> str:
        name = html.unescape(script[1])
        moved(f"{name.replace('/', '--')}.js", f"(window.explorerData ||= {{}})[{json.dumps(name)}] = {script[2]!r};")
        return ""

    body = PAYLOAD.sub(payload, TABLE.sub(table, context.get("body", "")))
    inside, explore = context["pathto"](place, resource=True), context["pathto"]("explore").rstrip("#")
    body = body.replace(EXPLORER, f'{EXPLORER} data-folder="{inside}"')
    context["body"] = body.replace('href="explore.ipynb#', f'href="{explore}#')


def describe(app, page: str, template: str, context: dict, doctree) -> None:
    """What search engines and messengers show of a page: its title, and its first paragraph."""
    paragraph = doctree and doctree.next_node(nodes.paragraph)
    words = " ".join(paragraph.astext().split()) if paragraph else app.config.html_title
    title = re.sub("<[^>]+>", "", context.get("title", ""))
    properties = {"og:title": title, "og:description": words, "og:type": "article", "og:site_name": app.config.project}
    tags = [f'<meta property="{name}" content="{html.escape(text)}">' for name, text in properties.items()]
    context["metatags"] = context.get("metatags", "") + "".join(
        [f'<meta name="description" content="{html.escape(words)}">', *tags]
    )


def complete_buttons(app, page: str, template: str, context: dict, doctree) -> None:
    """Adds the script of a page that a notebook makes to the theme's downloads. The theme's launch buttons open the
    notebook of the page's own name: on the page of a model they get that of the template."""
    if not (name := notebook_of(page)):
        return
    script = Path(app.outdir, "_sources", f"{name}.py")
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(NOTEBOOKS / script.name, script)
    url = f"{context['pathto']('_sources', resource=True)}/{script.name}"
    own = {"type": "link", "text": ".py", "tooltip": "Download script", "icon": "fas fa-code", "url": url}
    for group in context["header_buttons"]:
        if group.get("label") == "download-buttons":
            group["buttons"].insert(1, own)
            continue
        for button in (button for button in group.get("buttons", ()) if "url" in button):
            button["url"] = button["url"].replace(f"/{page}.ipynb", f"/{name}.ipynb")
