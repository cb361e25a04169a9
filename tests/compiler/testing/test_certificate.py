"""The certificate: what is counted, and that nothing that fails is lost."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from trtplug.testing import certificate
from trtplug.testing.errors import LawViolationError, NotApplicableError
from trtplug.testing.lowered import Lowerings


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
        return Lowerings(3, {"whole": 2, "refused": 1}) if self.how == "lowers" else 5


CASES = [Case(f"{how} {number}", how) for number, how in enumerate(("holds", "fails", "lowers", "does not apply") * 2)]


def test_every_case_is_tried_and_counted(monkeypatch):
    results = certificate.try_all(CASES, jobs=1)
    monkeypatch.setattr(certificate, "lowered_cases", lambda registry: [c for c in CASES if c.how == "lowers"])
    monkeypatch.setattr(certificate, "claims", lambda registry: {})
    found = certificate.certificate(None, results, {"mutants": 10, "killed": 9})
    assert found["examples of converters"] == 10
    assert found["examples of decompositions"] == 6
    assert found["lowered calls that ran whole"] == 4
    assert found["lowered calls that were refused"] == 2
    assert (found["mutants"], found["mutants killed"]) == (10, 9)
    assert found["failures"] == 2
    assert certificate.certificate(None, results, None)["mutants"] == "no record given"


def test_a_case_that_ends_its_process_is_a_failure_and_the_others_go_on():
    cases = [*CASES[:2], Case("crash", "crashes"), *CASES[2:], Case("crash too", "crashes")]
    results = certificate.try_all(cases, jobs=2)
    assert sorted(one.case for one in results) == sorted(case.id for case in cases)
    failures = {one.case: one.failure for one in results if one.failure}
    assert failures.keys() == {"fails 1", "fails 5", "crash", "crash too"}
    assert failures["crash"] == "the process ended with 7"


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
