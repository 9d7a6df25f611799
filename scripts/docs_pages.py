"""Pages of the site that are other files of the tree, and links to these.

A hook of MkDocs: in the pages, links are those that work where the sources are read;
here they come to lead to the pages.
"""

import ast
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent

PAGES = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}


def on_files(files, config):
    """Add the pages that have no file in docs/."""
    contents = {page: (ROOT / name).read_text() for page, name in PAGES.items()}
    contents["examples.md"] = examples()
    for page, content in contents.items():
        # What lies beside these files in the tree is not on the site: no links there.
        content = re.sub(r"\[([^\]\n]+)\]\((?!https?:|#)[^)]+\)", r"`\1`", content)
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown, **_):
    """Turn links to files outside of docs/ to their pages."""
    for page, name in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1)", markdown)
    return markdown.replace("](../examples)", "](examples.md)")


def examples():
    """Return a page with every program in examples/."""
    lines = [
        "# Examples",
        "",
        "Programs to copy. Each runs as it is and is run by a test.",
    ]
    for path in sorted((ROOT / "examples").glob("*.py")):
        if path.stem == "tour":  # has parts in other files
            continue
        source = path.read_text()
        about = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
        lines += [
            *("", f"## {path.stem}", "", about, ""),
            *(f'```python title="{path.name}"', source.rstrip(), "```"),
        ]
    return "\n".join(lines)
