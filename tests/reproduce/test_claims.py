"""The ledger of claims: every fault in it is named, and every relation means what it says."""

from __future__ import annotations

import pytest
import yaml

from robustlib.reproduce.claims import Claim, holds, in_words, load_claims
from robustlib.reproduce.notebooks import BookError


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: product", "id: total", "'total' is there twice"),
        ('  quantity: "a sum"', '  quantity: "a sum"\n  color: red', "'total'.*color"),
        ("  key: product.value\n", "", "'product'.*key is missing"),
        ("status: quoted", "status: sure", "'total'.*unknown status 'sure'"),
        ("kind: true", "kind: roughly", "'positive'.*unknown relation kind 'roughly'"),
        ("[reference]", "[referenz]", "'total'.*unknown profile 'referenz'"),
        ("[reference]", "[]", "'total'.*profiles"),
        ("notebook: toys/product", "notebook: toys/quotient", "'product'.*'toys/quotient'"),
        ("key: product.value", "key: sum.total", "'product'.*begin with 'product.'"),
        ("claimed: 6.5", "claimed: about", "'total'.*claimed='about'"),
        ('  statement: "the sum is positive"\n', "", "'positive'.*needs a statement"),
        (", tolerance: 0.01", "", "'total'.*tolerance"),
        (", tolerance: 0.01", ", tolerance: 0.01, value: 3", "'total'.*value"),
        ("kind: true", "kind: less_than, other: product.value", "'positive'.*other"),
        ("kind: true", "kind: at_most", "'positive'.*needs a value"),
        ("relation: {kind: true}", "relation: true", "'positive'.*needs a kind"),
        ('paper: euclid\n  item: "Theorem 2"', 'paper: 7\n  item: "Theorem 2"', "paper=7"),
        ("- id: total", "- total: total", "'number 1'"),
        ("- id: total", "- [", "not valid YAML"),
    ],
)
def test_a_fault_in_the_ledger_is_named(sources, old, new, message):
    path = sources / "book" / "claims.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BookError, match=message):
        load_claims(sources)


def test_the_ledger_of_the_tiny_book_is_read(sources, edit):
    claims = load_claims(sources)
    assert [claim.id for claim in claims] == ["total", "positive", "product"]
    assert claims[1].relation == {"kind": "true"}
    edit(sources / "book" / "claims.yml", "kind: true", "kind: 'true'")
    assert load_claims(sources) == claims


def claim(relation: str, claimed: float | None = 5.0) -> Claim:
    kind = yaml.safe_load(relation)
    return Claim("c", "p", "Table 1", "q", claimed, "quoted", "n/a", "a.b", kind, ("quick",))


VALUES = {"a.b": 5.02, "a.b.low": 4.9, "a.b.high": 5.1, "a.c": 6, "a.yes": True, "a.none": None}


@pytest.mark.parametrize(
    ("relation", "holding", "words"),
    [
        ("{kind: equal, tolerance: 0.02}", True, "= 5 ± 0.02"),
        ("{kind: equal, tolerance: 0.019}", False, "= 5 ± 0.019"),
        ("{kind: interval}", True, "the interval holds 5"),
        ("{kind: at_least}", True, "≥ 5"),
        ("{kind: at_least, value: 5.03}", False, "≥ 5.03"),
        ("{kind: at_most}", False, "≤ 5"),
        ("{kind: at_most, value: 5.02}", True, "≤ 5.02"),
        ("{kind: less_than, other: a.c}", True, "< a.c"),
        ("{kind: greater_than, other: a.c}", False, "> a.c"),
        ("{kind: less_than, other: a.b}", False, "< a.b"),
    ],
)
def test_each_relation_means_what_it_says(relation, holding, words):
    assert holds(claim(relation), VALUES) is holding
    assert in_words(claim(relation)) == words


def test_an_interval_that_misses_the_claimed_value_does_not_hold():
    assert not holds(claim("{kind: interval}", claimed=4.8), VALUES)


def test_a_claimed_value_at_the_very_edge_of_its_tolerance_holds():
    assert holds(claim("{kind: equal, tolerance: 0.01}", claimed=4.37), {"a.b": 4.38})


@pytest.mark.parametrize(
    ("relation", "values", "message"),
    [
        ("{kind: at_least}", {}, r"'c'.*does not record 'a\.b'"),
        ("{kind: at_least}", {"a.b": None}, r"'c'.*'a\.b' without a value"),
        ("{kind: at_least}", {"a.b": "text"}, r"'c'.*not a number"),
        ("{kind: at_least}", {"a.b": True}, r"'c'.*not a number"),
        ("{kind: 'true'}", {"a.b": 1}, r"'c'.*not True or False"),
        ("{kind: interval}", {"a.b": 1.0}, r"'c'.*does not record 'a\.b\.low'"),
        ("{kind: less_than, other: a.d}", {"a.b": 1.0}, r"'c'.*does not record 'a\.d'"),
    ],
)
def test_a_missing_or_unfit_value_is_an_error_with_the_claim_and_the_key(relation, values, message):
    with pytest.raises(BookError, match=message):
        holds(claim(relation), values)
