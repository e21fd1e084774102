"""The history on SQLite and on PostgreSQL: what is listed is what happened, however the log is cut and repeated."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update

from shared.history import schema
from shared.history.projection import Fact, project
from shared.history.queries import Wanted
from shared.history.store import History, HistoryUnavailable, WrongHistoryUrl
from shared.moments import us_of
from shared.subjects import told_of
from tests.history.facts import BORN, Life, logs, told_by

ONE_DATABASE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60, deadline=None
)


def take_in(history: History, facts: Sequence[Fact], cuts: Sequence[int]) -> None:
    """Take facts in, in stretches that end at the cuts."""
    ends = sorted({*(cut for cut in cuts if 0 < cut < len(facts)), len(facts)})
    start = 0
    for end in ends:
        began = history.position("made")
        assert began.seq == start
        assert history.apply(began, end, project(facts[start:end]))
        start = end


def everything(history: History, tenant: str) -> list[Any]:
    return list(history.list(Wanted(tenant, limit=1000)))


def compare(history: History, found: Sequence[Life]) -> None:
    for tenant in ("default", "other"):
        own = {life.run.run_id: life for life in found if life.run.tenant == tenant}
        listed = everything(history, tenant)
        assert {row["run_id"] for row in listed} == set(own)
        for row in listed:
            life = own[row["run_id"]]
            seen = row["state"], row["calls"], row["tokens"], row["asked"]
            assert seen == (life.state, life.calls, life.tokens, life.asked)
            assert row["cost_usd"] == pytest.approx(life.cost_usd)
            assert row["unknown_costs"] == life.unknown
            assert len(history.questions(tenant, [life.run.run_id])) == life.asked or row["ended_us"] is not None
        total = history.usage(tenant, (), from_us=None, to_us=None)[0]
        assert total["cost_usd"] == pytest.approx(sum(life.cost_usd for life in own.values()))
        assert total["calls"] == sum(life.calls for life in own.values())
        unknown = sum(life.unknown for life in own.values())
        assert total["unknown_costs"] == unknown
        assert history.unknown_total(tenant) == (unknown, unknown * 0.25)
        compare_pages(history, tenant, unknown)


def compare_pages(history: History, tenant: str, unknown: int) -> None:
    """Page by page each attempt of unknown cost comes once."""
    seen: list[tuple[int, str, str]] = []
    while page := history.unknown_attempts(tenant, before=seen[-1] if seen else None, limit=2):
        assert all(row["asked"] and row["code"] == "unknown" for row in page)
        seen += [(row["at_us"], row["run_id"], row["call"]) for row in page]
    assert len(seen) == len(set(seen)) == unknown
    assert seen == sorted(seen, reverse=True)


@ONE_DATABASE
@given(st.data())
def test_what_is_listed_is_what_happened(history: History, data: st.DataObject) -> None:
    """Whatever runs there are, wherever the log is cut; and once more from the beginning, on top of what is there."""
    history.again(from_nothing=True)
    found, facts = data.draw(logs())
    cuts = st.lists(st.integers(1, len(facts)), max_size=4)
    take_in(history, facts, data.draw(cuts))
    compare(history, found)
    before = {tenant: everything(history, tenant) for tenant in ("default", "other")}
    history.again()
    take_in(history, facts, data.draw(cuts))
    assert {tenant: everything(history, tenant) for tenant in ("default", "other")} == before


@ONE_DATABASE
@given(st.data())
def test_filters_and_pages_find_what_a_plain_look_finds(history: History, data: st.DataObject) -> None:
    history.again(from_nothing=True)
    found, facts = data.draw(logs())
    take_in(history, facts, [])
    whole = everything(history, "default")
    wanted = Wanted(
        "default",
        states=tuple(data.draw(st.sets(st.sampled_from(["running", "awaiting_approval", "completed", "waiting"])))),
        template=data.draw(st.sampled_from([None, "report"])),
        session_id=data.draw(st.sampled_from([None, "s1"])),
        kind=data.draw(st.sampled_from([None, "chat"])),
        parent=data.draw(st.sampled_from([None, "r0"])),
        model=data.draw(st.sampled_from([None, "maker/small"])),
        words=data.draw(st.sampled_from([None, "QUESTION 1", "%"])),
        from_us=data.draw(st.sampled_from([None, us_of(BORN + timedelta(seconds=2))])),
        limit=data.draw(st.integers(1, 3)),
    )
    small = {
        life.run.run_id for life in found for _, fact in life.told if getattr(fact, "model", None) == "maker/small"
    }

    def fits(row: Any) -> bool:
        return (
            (not wanted.states or row["state"] in wanted.states)
            and wanted.template in (None, row["template"])
            and wanted.session_id in (None, row["session_id"])
            and wanted.kind in (None, row["kind"])
            and wanted.parent in (None, row["parent"])
            and (wanted.model is None or row["run_id"] in small)
            and (wanted.words is None or wanted.words.lower() in (row["title"] or "").lower())
            and (wanted.from_us is None or row["born_us"] >= wanted.from_us)
        )

    pages: list[Any] = []
    while True:
        page = list(history.list(wanted))
        pages += page
        if len(page) < wanted.limit:
            break
        wanted = replace(wanted, before=(page[-1]["born_us"], page[-1]["run_id"]))
    assert pages == [row for row in whole if fits(row)]
    assert whole == sorted(whole, key=lambda row: (row["born_us"], row["run_id"]), reverse=True)


@ONE_DATABASE
@given(logs())
def test_usage_by_anything_adds_up(history: History, log: tuple[list[Life], list[Fact]]) -> None:
    history.again(from_nothing=True)
    _, facts = log
    take_in(history, facts, [])
    total = history.usage("default", (), from_us=None, to_us=None)[0]
    for by in (("day",), ("model", "role"), ("template", "category"), ("kind",), ("session", "provider", "purpose")):
        rows = history.usage("default", by, from_us=None, to_us=None)
        assert sum(row["calls"] for row in rows) == total["calls"]
        assert sum(row["cost_usd"] for row in rows) == pytest.approx(total["cost_usd"])
        assert len({tuple(row[name] for name in by) for row in rows}) == len(rows)
    everybody = history.usage(None, ("tenant",), from_us=None, to_us=None)
    assert sum(row["calls"] for row in everybody) == history.usage(None, (), from_us=None, to_us=None)[0]["calls"]
    for row in everybody:
        assert row["calls"] == history.usage(row["tenant"], (), from_us=None, to_us=None)[0]["calls"]


def example(number: int = 0) -> list[Fact]:
    told = enumerate(told_by(number))
    return [Fact(*told_of(subject), i + 1, "2026-11-27T08:00:00Z", fact.encode()) for i, (subject, fact) in told]


def test_of_several_writers_each_stretch_is_taken_in_by_one(history: History) -> None:
    facts = example()
    began = history.position("made")
    assert history.apply(began, 1, project(facts[:1]))
    assert not history.apply(began, 1, project(facts[:1]))
    assert history.position("made").seq == 1


def test_two_that_make_the_tables_at_once_do_not_disturb_each_other(history: History) -> None:
    schema.metadata.drop_all(history.engine)
    others = [History(history.engine.url.render_as_string(hide_password=False)) for _ in range(4)]
    failures: list[Exception] = []

    def make(one: History) -> None:
        try:
            one.make()
        except HistoryUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert others[0].position("made").seq == 0
    for one in others:
        one.close()


def test_a_log_that_was_made_anew_is_read_from_its_beginning(history: History) -> None:
    facts = example()
    assert history.apply(history.position("made"), len(facts), project(facts))
    assert history.position("made again").seq == 0
    listed = everything(history, "default") + everything(history, "other")
    assert len(listed) == 1, "what the old log had is kept"


def test_tables_of_another_version_are_made_anew(history: History) -> None:
    facts = example()
    assert history.apply(history.position("made"), len(facts), project(facts))
    with history.engine.begin() as connection:
        connection.execute(update(schema.position).values(era="0:made"))
    other = History(history.engine.url.render_as_string(hide_password=False))
    assert other.position("made").seq == 0
    assert everything(other, "default") + everything(other, "other") == []
    other.close()


def test_what_is_old_is_forgotten(history: History) -> None:
    facts = [fact for number in range(3) for fact in example(number)]
    history.apply(history.position("made"), len(facts), project(facts))
    history.forget(runs_before_us=0, calls_before_us=0)
    assert everything(history, "default") + everything(history, "other") != []
    history.forget(runs_before_us=us_of(BORN + timedelta(days=1)), calls_before_us=us_of(BORN + timedelta(days=1)))
    assert everything(history, "default") + everything(history, "other") == []
    with history.engine.connect() as connection:
        for table in ("segue_calls", "segue_questions"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_what_cannot_be_read_is_counted_and_passed_over() -> None:
    facts = example()
    broken = Fact("default", "r0", "accepted", 99, "", b'{"v": 9}')
    assert project([broken, *facts]).skipped == 1
    assert project([Fact("default", "r1", "something.new", 1, "", b"")]).skipped == 0


def test_nul_characters_do_not_stop_it(history: History) -> None:
    facts = example()
    rows = project(facts)
    for row in rows.runs.values():
        row.title = "a\x00b"
        row.model = "m\x00"
    assert history.apply(history.position("made"), len(facts), rows)


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg//"])
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(WrongHistoryUrl, match="sqlite:///path"):
        History(url)


def test_a_database_that_is_not_there_says_so_without_its_password(tmp_path: Path) -> None:
    gone = History("postgresql://segue:geheim@127.0.0.1:9/none")
    with pytest.raises(HistoryUnavailable) as caught:
        gone.make()
    assert "127.0.0.1" in str(caught.value)
    assert "geheim" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(HistoryUnavailable):
        History(f"sqlite:///{tmp_path}/file/history.db").make()
