"""The certificate: what is counted, and that nothing that fails is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import time

import pytest

from trtplug.testing import certificate
from trtplug.testing.errors import LawViolationError, NotApplicableError
from trtplug.testing.lowered import Lowerings
from trtplug.testing.trial import REPRODUCE


@dataclasses.dataclass(frozen=True)
class Case:
    id: str
    how: str

    def check(self):
        if self.how == "fails":
            raise LawViolationError("it is wrong")
        if self.how == "crashes":
            os._exit(7)
        if self.how == "does not apply":
            raise NotApplicableError("nothing to say")
        if self.how == "hangs":
            time.sleep(60)
        return 5


class Lowered(Case):
    def check(self):
        return Lowerings(3, {"whole": 2, "refused": 1})


HOWS = ("holds", "fails", "lowers", "does not apply") * 2
CASES = [(Lowered if how == "lowers" else Case)(f"{how} {number}", how) for number, how in enumerate(HOWS)]


def test_every_case_is_tried_and_counted(monkeypatch):
    results = certificate.try_all(CASES, jobs=1)
    monkeypatch.setattr(certificate, "claims", lambda registry: {})
    monkeypatch.setattr(certificate, "LoweredCase", Lowered)
    found = certificate.certificate(None, CASES, results, {"mutants": 11, "tried": 10, "killed": 9})
    assert found["examples of converters"] == 10
    assert found["examples of decompositions"] == 6
    assert found["cases not tried"] == 0
    assert found["lowered calls that ran whole"] == 4
    assert found["lowered calls that were refused"] == 2
    assert [found[f"mutants{what}"] for what in ("", " tried", " killed")] == [11, 10, 9]
    assert found["failures"] == 2
    found = certificate.certificate(None, CASES, results[1:], None)
    assert (found["mutants"], found["cases not tried"]) == ("no record given", 1)


def test_a_case_that_ends_its_process_is_a_failure_and_the_others_go_on():
    cases = [*CASES[:2], Case("crash", "crashes"), *CASES[2:], Case("crash too", "crashes")]
    results = certificate.try_all(cases, jobs=2)
    assert sorted(one.id for one in results) == sorted(case.id for case in cases)
    failures = {one.id: one.failure for one in results if one.failure}
    assert failures.keys() == {"fails 1", "fails 5", "crash", "crash too"}
    assert failures["crash"] == "the process ended with 7"


def test_a_case_that_does_not_end_is_a_failure():
    cases = [Case("hang", "hangs"), *CASES[:1]]
    results = certificate.try_all(cases, jobs=1, patience=0.2)
    assert {one.id: one.failure for one in results} == {"hang": "no answer after 0.2 s", "holds 0": ""}


def test_what_is_in_the_file_is_not_tried_again(monkeypatch, tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    monkeypatch.setattr(certificate, "law_cases", lambda registry: CASES)
    monkeypatch.setattr(certificate, "lowered_cases", lambda registry: [])
    monkeypatch.setattr(certificate, "claims", lambda registry: {})
    command = ["--out", str(file), "--jobs", "1"]
    certificate.main([*command, "--time-limit", "0"])
    assert "cases not tried" in capsys.readouterr().out
    for options, lines in (([], 8), ([], 8), (["--again"], 8)):
        assert certificate.main([*command, *options]) == 1
        assert len(file.read_text().splitlines()) == lines
    monkeypatch.setattr(certificate, "source_of_all", lambda: "changed")
    for options, lines in (([], 8), (["--again"], 10)):
        assert certificate.main([*command, *options]) == 1
        assert len(file.read_text().splitlines()) == lines
    monkeypatch.setenv("TRTPLUG_LAWS_SECONDS", "2")  # another profile
    certificate.main([*command, "--only", "holds", "--json"])
    assert len(file.read_text().splitlines()) == 12


def test_another_draw_that_passes_does_not_mend_what_failed(tmp_path):
    file = tmp_path / "results.jsonl"

    def known(**more):
        with file.open("a") as out:
            print(json.dumps(dataclasses.asdict(certificate.Tried("one", "ci", **more))), file=out)
        return certificate.read(file, "ci")["one"].failure

    assert known(source="a", failure="no answer after 3 s") == "no answer after 3 s"
    assert not known(source="a")  # the machine was busy
    assert known(source="a", failure="wrong") == "wrong"
    assert known(source="a") == "wrong"
    assert not known(source="b")
    assert known(source="b", failure="worse") == "worse"
    assert not known(source="b", mended=True)


def test_what_is_of_other_source_is_tried_again_and_after_what_never_was(monkeypatch, tmp_path):
    file = tmp_path / "results.jsonl"
    sources = {case.id: "one" for case in CASES}
    monkeypatch.setattr(certificate, "source", lambda case: sources[case.id])
    monkeypatch.setattr(certificate, "law_cases", lambda registry: CASES)
    monkeypatch.setattr(certificate, "lowered_cases", lambda registry: [])
    monkeypatch.setattr(certificate, "claims", lambda registry: {})
    command = ["--out", str(file), "--jobs", "1"]
    certificate.main([*command, "--only", "holds"])
    sources["holds 4"] = "two"
    assert certificate.main(command) == 1
    tried = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["id"] for one in tried[-1:]] == ["holds 4"]
    assert [one["source"] for one in tried if one["id"] == "holds 4"] == ["one", "two"]
    assert len(tried) == len(CASES) + 1


@pytest.mark.parametrize("how", ["holds", "fails"])
def test_the_command(monkeypatch, capsys, how):
    monkeypatch.setattr(certificate, "law_cases", lambda registry: [Case("only one", how)])
    monkeypatch.setattr(certificate, "lowered_cases", lambda registry: [])
    monkeypatch.setattr(certificate, "claims", lambda registry: {"core overloads": 193})
    assert certificate.main(["--json", "--jobs", "1"]) == (how == "fails")
    found = json.loads(capsys.readouterr().out)
    assert found["core overloads"] == 193
    assert found["failures"] == len(found["failed"]) == (how == "fails")
    certificate.main(["--jobs", "1"])
    assert ("it is wrong" in capsys.readouterr().out) == (how == "fails")


def test_a_failure_without_a_script_keeps_the_one_before(monkeypatch):
    before = f"wrong\n\n{REPRODUCE}run it\n"
    monkeypatch.setattr(certificate, "still_fails", lambda case, failed: "")
    for how, words in (("fails", "LawViolationError: it is wrong"), ("crashes", "the process ended with 7")):
        (found,) = certificate.try_all([Case("one", how)], jobs=1, failed={"one": before})
        assert (found.failure, found.mended) == (f"{words}\n\nafter:\n\n{before}", True)
    (found,) = certificate.try_all([Case("one", "holds")], jobs=1, failed={"one": before})
    assert (found.failure, found.examples) == ("", 5)
    monkeypatch.setattr(certificate, "still_fails", lambda case, failed: failed)
    (found,) = certificate.try_all([Case("one", "holds")], jobs=1, failed={"one": before})
    assert (found.failure, found.examples) == (before, 0)
