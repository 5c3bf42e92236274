"""The examples in the stubs, in the modules and in docs/python.md run as they are written."""

import ast
import doctest
from pathlib import Path

import pytest

import sketchkv.evaluation

REPOSITORY = Path(__file__).parents[3]
STUBS = Path(sketchkv.__file__).with_name("_sketchkv.pyi")


def run(texts, name):
    """Runs the examples of the texts, one after the other, in one namespace."""
    parser, runner, names = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), {}
    for number, text in enumerate(texts):
        test = parser.get_doctest(text, names, f"{name}, text {number}", None, 0)
        test.globs = names
        runner.run(test, clear_globs=False)
    assert runner.failures == 0
    assert runner.tries > 0


def test_stubs():
    nodes = ast.walk(ast.parse(STUBS.read_text()))
    documented = (node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
    run(filter(None, map(ast.get_docstring, documented)), "_sketchkv.pyi")


def test_modules():
    outcome = doctest.testmod(sketchkv.evaluation, optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0 and outcome.attempted > 0


def test_guide():
    run([(REPOSITORY / "docs" / "python.md").read_text()], "docs/python.md")


def test_stubs_and_module_have_the_same_names():
    stubs = {
        node.name: {
            getattr(member, "name", None) or member.target.id
            for member in node.body
            if isinstance(member, (ast.FunctionDef, ast.AnnAssign))
        }
        for node in ast.parse(STUBS.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name != "Options"
    }
    for name, members in stubs.items():
        found = getattr(sketchkv._sketchkv, name)
        public = {member for member in vars(found) if not member.startswith("_")}
        assert public == {member for member in members if not member.startswith("_")}, name
