"""Goal:   every rule of tools/tidy fires on a file that breaks it, and stays silent otherwise.
Method: a tree of one or two small files a case in a temporary directory, then tools/tidy on it."""
import os
import subprocess
import sys
import tempfile
import unittest

TIDY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tidy")
GUARD = "#ifndef BNS_BASE_X_H\n#define BNS_BASE_X_H\n#endif\n"
BODY = "static int f(int a)\n{\n%s    return a;\n}\n"

# (what the case shows, rule expected or None, path, text)
CASES = [
    ("a plain file", None, "common/base/x.c", BODY % ""),
    ("800 lines", None, "common/base/x.c", "int x;\n" * 800),
    ("801 lines", "file-lines", "common/base/x.c", "int x;\n" * 801),
    ("a function of 70 lines", None, "common/base/x.c", BODY % ("    a++;\n" * 67)),
    ("a function of 71 lines", "function-lines", "common/base/x.c", BODY % ("    a++;\n" * 68)),
    ("100 columns", None, "common/base/x.c", "/* " + "x" * 94 + " */\n"),
    ("101 columns", "columns", "common/base/x.c", "/* " + "x" * 95 + " */\n"),
    ("a tab", "tab", "common/base/x.c", "\tint x;\n"),
    ("a tab in a Makefile", None, "Makefile", "all:\n\ttrue\n"),
    ("blanks at the end", "trailing", "common/base/x.c", "int x; \n"),
    ("no newline at the end", "newline", "common/base/x.c", "int x;"),
    ("bytes that are no text", "utf8", "common/base/x.c", b"int x; /* \xff */\n"),
    ("a banned call", "banned", "common/base/x.c", BODY % "    strcpy(0, 0);\n"),
    ("a clock read", "banned", "common/base/x.c", BODY % "    time(0);\n"),
    ("fork", "banned", "common/base/x.c", BODY % "    fork();\n"),
    ("a longer name", None, "common/base/x.c", BODY % "    bns_time(0); uptime(0);\n"),
    ("a member of that name", None, "common/base/x.c", BODY % "    o->time(0); o.rand(1);\n"),
    ("a banned call in a comment", None, "common/base/x.c", "/* not strcpy() */\n"),
    ("a banned call in a string", None, "common/base/x.c", 'char *x = "time(0)";\n'),
    ("a word of unfinished work", "word", "common/base/x.c", "/* TO" "DO later */\n"),
    ("another", "word", "docs/x.md", "FIX" "ME\n"),
    ("part of a longer word", None, "common/base/x.c", "int TO" "DOS;\n"),
    ("a good guard", None, "common/base/x.h", GUARD),
    ("a wrong guard", "guard", "common/io/x.h", GUARD),
    ("no guard", "guard", "common/base/x.h", "int x;\n"),
    ("a system's guard", None, "etcd-lite/src/kv.h",
     "#ifndef BNS_ETCD_KV_H\n#define BNS_ETCD_KV_H\n#endif\n"),
    ("a system's guard, short", None, "etcd-lite/src/kv.h",
     "#ifndef ETCD_KV_H\n#define ETCD_KV_H\n#endif\n"),
    ("a common guard, short", "guard", "common/base/x.h",
     "#ifndef BASE_X_H\n#define BASE_X_H\n#endif\n"),
    ("include downwards", None, "common/store/x.c", '#include "base/err.h"\n'),
    ("include upwards", "layer", "common/base/x.c", '#include "store/vfs.h"\n'),
    ("store includes io", "layer", "common/store/x.c", '#include "io/loop.h"\n'),
    ("proto includes store", "layer", "common/proto/x.c", '#include "store/vfs.h"\n'),
    ("a system includes another", "layer", "etcd-lite/src/x.c", '#include "kafka-lite/x.h"\n'),
    ("libuv in io", None, "common/io/x.c", "#include <uv.h>\n"),
    ("libuv elsewhere", "io-only", "common/app/x.c", "#include <uv.h>\n"),
    ("nghttp2 elsewhere", "io-only", "etcd-lite/src/x.c", "#include <nghttp2/nghttp2.h>\n"),
    ("TLS elsewhere", "io-only", "common/codec/x.c", "#include <openssl/ssl.h>\n"),
    ("hashes in codec", None, "common/codec/x.c", "#include <openssl/evp.h>\n"),
    ("a machine's path", "machine-path", "docs/x.md", "see /ho" "me/someone/x\n"),
    ("a path of ours", None, "docs/x.md", "see ./bonsai-data/x and /etc/x and src/wo" "rk/x\n"),
    ("six parameters and an error", None, "common/base/x.c",
     "int f(int a, int b, int c, int d, int e, int g, struct bns_err *err)\n{\n}\n"),
    ("seven parameters", "params", "common/base/x.c",
     "int f(int a, int b, int c, int d, int e,\n      int g, void (*h)(int, int))\n{\n}\n"),
    ("seven that a type demands", None, "common/base/x.c",
     "/* tidy: params: implements bns_x_fn */\n"
     "int f(int a, int b, int c, int d, int e, int g, int h)\n{\n}\n"),
    ("four levels", None, "common/base/x.c",
     BODY % "    if (a) {\n if (a) {\n if (a) {\n if (a) {\n a++;\n }\n }\n }\n }\n"),
    ("five levels", "nesting", "common/base/x.c",
     BODY % "    if (a) {\n if (a) {\n if (a) {\n if (a) {\n if (a) {\n }\n }\n }\n }\n }\n"),
    ("generated code", None, "build/release/x.c", "\tint x; \n"),
    ("a fuzz corpus", None, "common/tests/corpus/x/a.txt", "\t/ho" "me/x \n"),
]

# (what the case shows, text expected or None, code of the core)
PURITY = [
    ("a call of base", None, "int bns_err_a(void);\nint f(void) { return bns_err_a(); }\n"),
    ("a constant table", None, "const char *const t[] = {\"a\"};\nint f(void) { return 0; }\n"),
    ("a call of the clock's file", "bns_time_a",
     "int bns_time_a(void);\nint f(void) { return bns_time_a(); }\n"),
    ("a call of libc", "calls malloc",
     "#include <stdlib.h>\nvoid *f(void) { return malloc(9); }\n"),
    ("initialised data", "g is writable", "int g = 7;\n"),
    ("zeroed data", "g is writable", "static int g;\nint f(void) { return g++; }\n"),
    ("data of a thread", "g is writable", "_Thread_local int g = 3;\n"),
]


class TidyRules(unittest.TestCase):
    def run_tidy(self, *args):
        return subprocess.run([sys.executable, TIDY, *args], capture_output=True, text=True)

    def test_each_rule_fires_and_only_then(self):
        for what, rule, path, text in CASES:
            with self.subTest(what), tempfile.TemporaryDirectory() as root:
                full = os.path.join(root, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "wb") as f:
                    f.write(text if isinstance(text, bytes) else text.encode())
                r = self.run_tidy("--root", root)
                rules = {line.split(": ")[1] for line in r.stdout.splitlines()}
                self.assertEqual(rules, {rule} if rule else set(), r.stdout)
                self.assertEqual(r.returncode, 1 if rule else 0)

    def test_fix_wraps_comments_and_keeps_every_word(self):
        long = " ".join("w%d" % i for i in range(60))
        text = ("/* x.c - %s\n *\n * - %s\n * - next\n * %s\n * more\n */\n\n    /* %s */\n"
                % (long, long, long, long))
        with tempfile.TemporaryDirectory() as root:
            path = os.path.join(root, "x.c")
            with open(path, "w") as f:
                f.write(text)
            self.assertEqual(self.run_tidy("--root", root).returncode, 1)
            r = self.run_tidy("--root", root, "--fix")
            self.assertEqual(r.returncode, 0, r.stdout)
            with open(path) as f:
                fixed = f.read()
            words = [w for w in fixed.split() if w != "*"]
            self.assertEqual(words, [w for w in text.split() if w != "*"])
            self.assertIn("\n * - next\n", fixed)
            self.assertEqual(self.run_tidy("--root", root, "--fix").stdout, "")

    def test_each_impurity_is_found(self):
        for what, expected, code in PURITY:
            with self.subTest(what), tempfile.TemporaryDirectory() as root:
                objs = {"core": code, "err": "int bns_err_a(void) { return 1; }\n",
                        "time": "int bns_time_a(void) { return 1; }\n"}
                for name, text in objs.items():
                    with open(os.path.join(root, name + ".c"), "w") as f:
                        f.write(text)
                    subprocess.run(["gcc", "-O1", "-fPIE", "-c", name + ".c", "-o", name + ".c.o"],
                                   cwd=root, check=True)
                subprocess.run(["ar", "rc", "p.a", "core.c.o"], cwd=root, check=True)
                subprocess.run(["ar", "rc", "b.a", "err.c.o", "time.c.o"], cwd=root, check=True)
                r = self.run_tidy("--purity", os.path.join(root, "p.a"), os.path.join(root, "b.a"))
                if expected:
                    self.assertIn(expected, r.stdout)
                else:
                    self.assertEqual(r.stdout, "")
                self.assertEqual(r.returncode, 1 if expected else 0)


if __name__ == "__main__":
    unittest.main()
