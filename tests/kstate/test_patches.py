"""Kernel specs: the grammar, the canonical form, the errors."""

from __future__ import annotations

import pytest

from kstate import patches
from kstate.patches import CLEAN, SERIES, TABLE, SpecError, parse_spec


def test_v44_is_v43_with_the_series_and_what_else_came_with_it() -> None:
    modelled = {p.toggle for p in TABLE if p.modelled and (p.toggle in SERIES or p.base == "v4.4")}
    both = {p.toggle for p in TABLE if p.modelled and p.base == "both"}
    assert parse_spec("v4.3").toggles == both
    assert parse_spec("v4.4").toggles == modelled | both


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("v4.3+P02", "v4.3+P02"),
        ("v4.4+P02", "v4.4"),
        ("v4.4-P06-P02", "v4.4-P02-P06"),
        ("v4.3+P07+P02-P02", "v4.3+P07"),
        ("v4.4-fix:ksm-stale-node-P06", "v4.4-P06-fix:ksm-stale-node"),
        (
            "v4.4-fix:ksm-stale-node-fix:clear-refs-pte-P06+P06",
            "v4.4-fix:clear-refs-pte-fix:ksm-stale-node",
        ),
        ("v4.4+fix:ksm-no-file-P02", "v4.4-P02+fix:ksm-no-file"),
        (CLEAN, CLEAN),
        ("v4.3+alt:single-page-munlock", "v4.3+alt:single-page-munlock"),
    ],
)
def test_specs_have_one_canonical_form(text: str, canonical: str) -> None:
    spec = parse_spec(text)
    assert spec.text == canonical
    assert parse_spec(canonical) == spec


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("v4.5", "must begin with"),
        ("", "must begin with"),
        ("v4.3+P99", "unknown patch 'P99'"),
        ("v4.4-P07", "P08 requires P07"),
        ("v4.3+mutant:8b", "mutant:8b requires P08"),
        ("v4.3P02", "expected [+] or -"),
        ("v4.3+", "expected [+] or -"),
        ("v4.3+mutant:9z", "unknown patch"),
    ],
)
def test_what_is_no_kernel_is_refused_with_a_reason(text: str, wrong: str) -> None:
    with pytest.raises(SpecError, match=wrong):
        parse_spec(text)


def test_a_toggle_of_ones_own_is_asked_for_by_some_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no line of kstate asks for 'x:mine'"):
        parse_spec("v4.3+x:mine")
    monkeypatch.setattr(patches, "own_names", lambda: frozenset({"x:mine"}))
    assert parse_spec("v4.4+x:mine-P02").toggles == parse_spec("v4.4-P02").toggles | {"x:mine"}
    with pytest.raises(SpecError, match="unknown patch 'too'"):
        parse_spec("v4.4+x:mine-too")


def test_a_commit_that_another_patch_rests_on_stays_in() -> None:
    with pytest.raises(SpecError, match="P11 requires 8bdd63809160"):
        parse_spec("v4.4-8bdd63809160")
    assert parse_spec("v4.4-8bdd63809160-P11")
