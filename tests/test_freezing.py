"""Tools that make a program one file look for import statements."""

import ast
import pathlib

import fastloop

PACKAGE = pathlib.Path(fastloop.__file__).parent
# Imported by programs, by Python and by pytest.
STARTS = ["__init__", "__main__", "pytest_plugin"]


def imported(path):
    """The modules of the package that a file imports by statements that run."""
    skipped = set()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                skipped.update(ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {n.name for n in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.removeprefix("fastloop."))
        elif isinstance(node, ast.Import):
            found |= {name.name.removeprefix("fastloop.") for name in node.names}
    return found


def test_statements_lead_to_every_module():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    seen, ahead = set(), [*STARTS]
    while ahead:
        module = ahead.pop()
        if module in seen or module not in modules:  # a name, or native
            continue
        seen.add(module)
        ahead += imported(PACKAGE / f"{module}.py")
    assert modules - seen == set()
