"""Goal:   docs/etcd-bugs.md names tests that are there, for each of the twenty bugs.
Method: a word in backquotes with a slash is a file; the names behind it must be tests of that file.
        A number in the last column must be a planted bug that one of the row's files, or what it
        includes, knows.

    test_etcd_bugs.py"""
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCES = ["common/app", "common/proto", "common/store", "etcd-lite/src"]


def text(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read()


def rows():
    for line in text("docs/etcd-bugs.md").splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "bug":
            yield cells


def is_test(path, name):
    if path.endswith(".py"):
        return re.search(rf"^def {name}\(", text(path), re.M)
    return re.search(rf"\b(cmocka_unit_test\w*|T)\({name}\b", text(path))


def defines():
    """(macro, number) of every planted bug with a name; a number may have two."""
    out = []
    for folder in SOURCES:
        for name in os.listdir(os.path.join(ROOT, folder)):
            if name.endswith((".c", ".h")):
                out += re.findall(r"#define (\w*MUTANT\w*) (\d+)", text(f"{folder}/{name}"))
    return out


def switched_on(path):
    """Numbers of the planted bugs that a test, or a header of its folder that it includes, uses."""
    body, folder = text(path), os.path.dirname(path)
    for header in re.findall(r'#include "(\w+\.h)"', body):
        if os.path.exists(os.path.join(ROOT, folder, header)):
            body += text(f"{folder}/{header}")
    named = {n for macro, n in defines() if re.search(rf"\b{macro}\b", body)}
    return named | set(re.findall(r'\{(\d+), "', body))


class Bugs(unittest.TestCase):
    def test_every_bug_has_a_row(self):
        self.assertEqual([r[0].split(":")[0] for r in rows()], [str(n) for n in range(1, 21)])

    def test_every_row_names_tests_that_exist(self):
        for bug, _, tests, _ in rows():
            path, count = None, 0
            for word in re.findall(r"`([^`]+)`", tests):
                if "/" in word:
                    path = word
                    self.assertTrue(os.path.exists(os.path.join(ROOT, path)), f"{bug}: {path}")
                else:
                    self.assertTrue(path and is_test(path, word), f"{bug}: no {word} in {path}")
                    count += 1
            self.assertGreater(count, 0, bug)

    def test_planted_bugs_are_planted(self):
        for bug, _, tests, numbers in rows():
            known = set().union(*(switched_on(w) for w in re.findall(r"`([^`]+)`", tests)
                                  if "/" in w))
            for n in re.findall(r"\d+", numbers):
                self.assertIn(n, known, bug)


if __name__ == "__main__":
    unittest.main()
