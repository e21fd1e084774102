"""What a key or a tenant has used and holds, against what it may. Pure.

What an attempt may cost at the most is held before it is sent, and replaced by what it did cost. Sums are whole
nano-dollars, so that they are exact. An attempt whose hold is gone is settled: it is never counted twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.contracts.access import Account, Allowance, Guess, Hold, Places

NANO: Final = 1_000_000_000
MOST_HELD: Final = 1_000
"""Attempts of one account at the same time: its record stays small."""
MOST_RUNS: Final = 5_000
MOST_GUESSED: Final = 500
"""Attempts of one account whose count may still be put right: of more, the oldest stay as they were counted."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an attempt may take at the most."""

    nano_usd: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Held:
    """It fits; this is the account with it."""

    account: Account


@dataclass(frozen=True, slots=True)
class Later:
    """It fits only if others turn out to cost less than they hold."""


@dataclass(frozen=True, slots=True)
class Over:
    """It does not fit any more until the window turns."""

    what: str
    """For people: `2.00 US dollars a day`."""
    money: bool
    turns_at: datetime
    left: int = 0
    """Of the budget: nano-dollars, or tokens."""
    wanted: int = 0

    def amount(self, of: int) -> str:
        """Return nano-dollars, or tokens, for people."""
        return f"${usd(of):.6f}" if self.money else f"{of:,} tokens"


def nano(usd: float) -> int:
    """Return an amount in whole nano-dollars, rounded up."""
    whole = round(usd * NANO)
    return whole if whole >= usd * NANO - 1e-3 else whole + 1


def usd(nano_usd: int) -> float:
    return nano_usd / NANO


def today(account: Account | None, now: datetime) -> Account:
    """Return an account as it stands at a time: another day begins with nothing, and what died is counted whole."""
    found = account or Account()
    day, month = now.astimezone(UTC).strftime("%Y-%m-%d"), now.astimezone(UTC).strftime("%Y-%m")
    changed: dict[str, object] = {}
    if found.day != day:
        changed |= {"day": day, "day_nano_usd": 0, "day_tokens": 0}
    if found.month != month:
        changed |= {"month": month, "month_nano_usd": 0, "guessed": {}}
    found = found.model_copy(update=changed) if changed else found
    dead = {name: one for name, one in found.held.items() if one.until < now}
    if dead:
        rest = {name: one for name, one in found.held.items() if name not in dead}
        found = found.model_copy(update={"held": rest})
        for name, one in dead.items():
            found = _guessed(found, ".".join(name.split(".")[:4]), Wanted(one.nano_usd, one.tokens))
    return found


def over(account: Account | None, allowance: Allowance, now: datetime, wanted: Wanted | None = None) -> Over | None:
    """Return what is used up, whatever becomes of what is held; `wanted`: with that on top."""
    found = today(account, now)
    more = wanted or Wanted(1, 1)
    late = [
        replace(one.over, left=max(0, one.most - one.used), wanted=one.wanted)
        for one in _limits(found, allowance, more, now)
        if one.used + one.wanted > one.most
    ]
    return max(late, key=lambda one: one.turns_at, default=None)


def hold(
    account: Account | None, allowance: Allowance, name: str, wanted: Wanted, *, now: datetime, until: datetime
) -> Held | Later | Over:
    """Hold what an attempt may cost. Repeating it changes nothing."""
    found = today(account, now)
    if name in found.held:
        return Held(found)
    if (none := over(found, allowance, now, wanted)) is not None:
        return none
    held = Wanted(sum(one.nano_usd for one in found.held.values()), sum(one.tokens for one in found.held.values()))
    together = Wanted(held.nano_usd + wanted.nano_usd, held.tokens + wanted.tokens)
    if len(found.held) >= MOST_HELD or over(found, allowance, now, together) is not None:
        return Later()
    one = Hold(nano_usd=wanted.nano_usd, tokens=wanted.tokens, until=until)
    return Held(found.model_copy(update={"held": {**found.held, name: one}}))


def settle(
    account: Account | None, attempt: str, now: datetime, *, nano_usd: int | None, tokens: int | None
) -> Account | None:
    """Put what an attempt did take in the place of what it holds; None: it is settled.

    What nobody knows (None) is all that was held of it, and is put right when it is found out, as long as its day or
    month lasts. `attempt`: the hold's name, or the part before its claim.
    """
    if account is None:
        return None
    names = [name for name in account.held if name == attempt or name.startswith(f"{attempt}.")]
    if not names:
        return None if nano_usd is None else _put_right(account, attempt, now, nano_usd=nano_usd, tokens=tokens)
    most = max((account.held[name] for name in names), key=lambda one: (one.nano_usd, one.tokens))
    rest = {name: one for name, one in account.held.items() if name not in names}
    found = today(account.model_copy(update={"held": rest}), now)
    spent = Wanted(most.nano_usd if nano_usd is None else nano_usd, most.tokens if tokens is None else tokens)
    return _counted(found, spent) if nano_usd is not None and tokens is not None else _guessed(found, attempt, spent)


def _put_right(account: Account, attempt: str, now: datetime, *, nano_usd: int, tokens: int | None) -> Account | None:
    """Put what an attempt did take in the place of what it was counted at; None: nothing was guessed of it."""
    if (guess := account.guessed.get(attempt)) is None:
        return None
    rest = {name: one for name, one in account.guessed.items() if name != attempt}
    found = today(account.model_copy(update={"guessed": rest}), now)
    less_usd, less_tokens = guess.nano_usd - nano_usd, guess.tokens - (guess.tokens if tokens is None else tokens)
    changed: dict[str, object] = {}
    if guess.month == found.month:
        changed["month_nano_usd"] = max(0, found.month_nano_usd - less_usd)
    if guess.day == found.day:
        changed["day_nano_usd"] = max(0, found.day_nano_usd - less_usd)
        changed["day_tokens"] = max(0, found.day_tokens - less_tokens)
    return found.model_copy(update=changed)


def release(account: Account | None, name: str) -> Account | None:
    """Give back a hold that nothing was sent with; None: there is none."""
    if account is None or name not in account.held:
        return None
    return account.model_copy(update={"held": {key: one for key, one in account.held.items() if key != name}})


def _guessed(account: Account, attempt: str, spent: Wanted) -> Account:
    """Count what nobody knows, and remember at what."""
    guess = Guess(nano_usd=spent.nano_usd, tokens=spent.tokens, day=account.day, month=account.month)
    kept = list({**account.guessed, attempt: guess}.items())[-MOST_GUESSED:]
    return _counted(account.model_copy(update={"guessed": dict(kept)}), spent)


def _counted(account: Account, spent: Wanted) -> Account:
    return account.model_copy(
        update={
            "day_nano_usd": account.day_nano_usd + spent.nano_usd,
            "month_nano_usd": account.month_nano_usd + spent.nano_usd,
            "day_tokens": account.day_tokens + spent.tokens,
        }
    )


@dataclass(frozen=True, slots=True)
class _Limit:
    most: int
    used: int
    wanted: int
    over: Over


def _limits(account: Account, allowance: Allowance, wanted: Wanted, now: datetime) -> Iterator[_Limit]:
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if (usd_a_day := allowance.usd_per_day) is not None:
        over_it = Over(f"{usd_a_day:g} US dollars a day", money=True, turns_at=midnight)
        yield _Limit(nano(usd_a_day), account.day_nano_usd, wanted.nano_usd, over_it)
    if (usd_a_month := allowance.usd_per_month) is not None:
        first = (midnight - timedelta(days=1)).replace(day=1)
        over_it = Over(f"{usd_a_month:g} US dollars a month", True, (first + timedelta(days=32)).replace(day=1))
        yield _Limit(nano(usd_a_month), account.month_nano_usd, wanted.nano_usd, over_it)
    if (tokens := allowance.tokens_per_day) is not None:
        over_it = Over(f"{tokens:,} tokens a day", money=False, turns_at=midnight)
        yield _Limit(tokens, account.day_tokens, wanted.tokens, over_it)


def taken(places: Places | None, run_id: str, most: int, *, now: datetime, until: datetime) -> Places | None:
    """Return the places with one more run among them; None when as many go on as may. A run has one place."""
    runs = {name: ends for name, ends in (places.runs if places is not None else {}).items() if ends > now}
    if run_id not in runs and len(runs) >= min(most, MOST_RUNS):
        return None
    return Places(runs={**runs, run_id: until})


def left(places: Places | None, run_id: str) -> Places | None:
    """Return the places without a run; None when it has none."""
    if places is None or run_id not in places.runs:
        return None
    return Places(runs={name: ends for name, ends in places.runs.items() if name != run_id})
