"""What wstest's reports come to."""

from conformance.wstest.grades import Cases, table, worse


def cases(**behaviors: str) -> Cases:
    """`c1_2="OK"` is case 1.2, which closed well."""
    return {
        name[1:].replace("_", "."): {"behavior": grade, "behaviorClose": "OK"}
        for name, grade in behaviors.items()
    }


def test_what_is_the_same_or_better_is_not_worse() -> None:
    direct = cases(c1_1="OK", c1_2="UNIMPLEMENTED", c1_3="NON-STRICT", c1_4="INFORMATIONAL")
    proxied = cases(c1_1="OK", c1_2="OK", c1_3="NON-STRICT", c1_4="INFORMATIONAL")
    assert list(worse(proxied, direct)) == []


def test_each_case_that_is_worse_is_named_in_its_order() -> None:
    direct = cases(c1_10="OK", c1_2="OK", c1_1="NON-STRICT")
    proxied = cases(c1_10="FAILED", c1_2="NON-STRICT", c1_1="OK")
    assert list(worse(proxied, direct)) == ["1.2: behavior OK -> NON-STRICT", "1.10: behavior OK -> FAILED"]


def test_a_worse_close_counts_and_so_does_a_case_that_was_not_run() -> None:
    direct = cases(c1_1="OK", c1_2="OK")
    proxied = {"1.1": {"behavior": "OK", "behaviorClose": "UNCLEAN"}}
    assert list(worse(proxied, direct)) == ["1.1: behaviorClose OK -> UNCLEAN", "1.2: not run"]


def test_a_grade_that_nobody_knows_is_the_worst() -> None:
    assert list(worse(cases(c1_1="PECULIAR"), cases(c1_1="FAILED"))) == ["1.1: behavior FAILED -> PECULIAR"]


def test_the_table_counts_each_group_for_each_server() -> None:
    lines = list(
        table({"direct": cases(c1_1="OK", c1_2="OK", c2_1="OK"), "relay": cases(c1_1="OK", c1_2="FAILED")})
    )
    assert lines[0].split() == ["direct", "relay"]
    assert lines[1].split() == ["1", "framing", "2", "OK", "1", "OK,", "1", "FAILED"]
    assert lines[2].split() == ["2", "pings", "and", "pongs", "1", "OK"]
    assert lines[3].split() == ["closing", "handshake", "3", "OK", "2", "OK"]
