"""Goal:   what docs/concepts points at is there: each file, and in it each test that is named.
Method: every word in backquotes with a slash and an ending is a path; a name in backquotes after
        "path`: " (and after the commas behind it) must stand in that file.

    test_concepts.py"""
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCS = os.path.join(ROOT, "docs", "concepts")
PATH = re.compile(r"[\w.-]+(/[\w.-]+)+\.\w+$")


def pages():
    return sorted(f for f in os.listdir(DOCS) if f.endswith(".md"))


def text(path):
    with open(path) as f:
        return f.read()


class Concepts(unittest.TestCase):
    def test_files_and_tests_are_there(self):
        checked = 0
        for page in pages():
            path = None
            for line in text(os.path.join(DOCS, page)).splitlines():
                end = 0
                for m in re.finditer(r"`([^`]+)`", line):
                    word, between = m.group(1), line[end:m.start()]
                    end = m.end()
                    if PATH.match(word):
                        path = word
                        self.assertTrue(os.path.exists(os.path.join(ROOT, word)),
                                        f"{page}: {word} is not there")
                        checked += 1
                    elif path and (between == ": " or between == ", ") and re.match(r"\w+$", word):
                        self.assertIn(word, text(os.path.join(ROOT, path)),
                                      f"{page}: no {word} in {path}")
                        checked += 1
                    else:
                        path = None
        self.assertGreater(checked, 80)

    def test_the_index_has_every_page(self):
        index = text(os.path.join(DOCS, "README.md"))
        for page in pages():
            if page != "README.md":
                self.assertIn(f"]({page})", index)


if __name__ == "__main__":
    unittest.main()
