"""What a run would do, as text."""

from __future__ import annotations

from prefbench.foresight import Bill, Foresight
from prefbench.report.layout import plain

MOST = 20
"""Cells that are named one by one."""


def as_text(foresight: Foresight) -> str:
    """Cells, judges and prices, for a person who has to say yes to them."""
    lines = [
        f"{len(foresight.to_measure)} cells would be measured, {foresight.n_measured} are done"
    ]
    lines += [f"  {plain(title)}" for title in foresight.to_measure[:MOST]]
    if len(foresight.to_measure) > MOST:
        lines.append(f"  and {len(foresight.to_measure) - MOST} more")
    n_left = sum(bill.n_comparisons for bill in foresight.bills)
    if n_left or foresight.n_judged:
        lines.append(f"{n_left} comparisons would be judged, {foresight.n_judged} are done")
    lines += [line for bill in foresight.bills for line in _bill(bill)]
    if len(foresight.bills) > 1:
        cost, most = (
            sum(getattr(b, name) for b in foresight.bills) for name in ("cost", "cost_most")
        )
        lines.append(f"in all about ${cost:.2f}, at most ${most:.2f}")
    lines += [
        f"left alone: {plain(name)}: {plain(state)}"
        for name, state in foresight.checkpoints.items()
        if state != "ready"
    ]
    lines += [f"cannot be done: {plain(reason)}" for reason in foresight.reasons]
    return "\n".join([*lines, "nothing was measured and nobody was asked"]) + "\n"


def _bill(bill: Bill) -> list[str]:
    kinds = {one.recipe.kind for one in bill.judge.members or (bill.judge,)}
    name = plain(bill.judge.name)
    if "openai" not in kinds:
        return [f"  {name}: {bill.calls} pairs, on this machine, at no price"]
    kept = f"; {bill.n_kept} verdicts are kept already" if bill.n_kept else ""
    return [
        f"  {name}: {bill.calls} calls, about {bill.n_in:,} tokens in and at most "
        f"{bill.n_out_most:,} out{kept}",
        f"  {' ' * len(name)}  about ${bill.cost:.2f}, at most ${bill.cost_most:.2f}"
        + (" (answers that are not there yet taken at full length)" if bill.supposed else ""),
    ]
