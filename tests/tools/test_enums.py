"""The generated enums: the Rust one is compiled and run, the Swift one read."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from eqdiff_jax.music.vocabulary import VOCABULARY
from tools.enums import case_names, rust_enum, swift_enum

MAIN = """
fn main() {
    for token in MusicToken::ALL {
        println!("{} {} {:?}", token as u8, token.name(), MusicToken::from_id(token as u8));
    }
    println!("{} {:?}", MusicToken::MASK, MusicToken::from_id(MusicToken::MASK));
}
"""


def test_case_names_are_81_distinct_identifiers():
    names = case_names()
    assert len(set(names)) == 81
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) for name in names)
    assert names[:3] == ["Rest", "C2", "CSharp2"]
    assert names[-1] == "Break"


def test_rust_compiles_without_warnings_and_has_the_ids(tmp_path, need):
    rustc = shutil.which("rustc")
    need(rustc, "no rustc: install Rust")
    source = tmp_path / "token.rs"
    source.write_text(rust_enum() + MAIN, encoding="utf-8")
    subprocess.run([rustc, "--edition", "2021", "-D", "warnings", "-o", str(tmp_path / "token"), str(source)],
                   check=True)
    printed = subprocess.run([str(tmp_path / "token")], check=True, capture_output=True, text=True).stdout
    expected = [f"{token} {name} Some({case})"
                for token, (name, case) in enumerate(zip(VOCABULARY.names, case_names(), strict=True))]
    assert printed.splitlines() == [*expected, "81 None"]


def test_swift_has_the_ids_and_names():
    source = swift_enum()
    cases = re.findall(r"^    case (`?)([a-z]\w*)\1 = (\d+)$", source, re.MULTILINE)
    assert [int(token) for _, _, token in cases] == list(range(81))
    assert len({name for _, name, _ in cases}) == 81
    assert {name for tick, name, _ in cases if tick} == {"repeat", "break"}
    arms = re.findall(r'^        case \.(\w+): return "(.+)"$', source, re.MULTILINE)
    assert arms == [(name, token) for (_, name, _), token in zip(cases, VOCABULARY.names, strict=True)]
    assert source.count("{") == source.count("}")


def test_the_module_prints_either_and_refuses_others():
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "tools/enums.py", *arguments], cwd=Path(__file__).parents[2],
                              capture_output=True, text=True, check=False)
    assert run("rust").stdout == rust_enum()
    assert run("swift").stdout == swift_enum()
    refused = run("cobol")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
