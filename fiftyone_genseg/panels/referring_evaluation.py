"""The panel "Referring evaluation": figures with intervals, distributions, and two runs side by side."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone.operators as foo
import numpy as np
import pandas as pd
from fiftyone.operators import types
from fiftyone.operators.categories import Categories
from fiftyone.operators.panel import Panel
from genseg_hub.evaluation.metrics import NAMES

from fiftyone_genseg.evaluation.slicing import comparison, kinds
from fiftyone_genseg.panels import _runs

_METRICS = ("ciou", "miou", "target_miou", "n_acc", "t_acc", "pr@0.5", "pr@0.9", "box_miou")
_FIGURES = {name: NAMES[name] for name in _METRICS} | {
    "n": "expressions",
    "n_target": "with a target",
    "n_no_target": "with no target",
    "n_failed": "without a usable answer",
    "policy": "policy",
}
# The expressions that a click on a figure shows.
_COST: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "ciou": lambda t: t["intersection"] < t["target_area"] + t["prediction_area"] - t["intersection"],
    "miou": lambda t: t["iou"] < 1,
    "target_miou": lambda t: (t["target_area"] > 0) & (t["iou"] < 1),
    "n_acc": lambda t: (t["target_area"] == 0) & (t["kind"] != kinds.CORRECT),
    "t_acc": lambda t: (t["target_area"] > 0) & (t["prediction_area"] == 0),
    "pr@0.5": lambda t: (t["target_area"] > 0) & (t["iou"] < 0.5),
    "pr@0.9": lambda t: (t["target_area"] > 0) & (t["iou"] < 0.9),
    "box_miou": lambda t: (t["target_area"] > 0) & (t["box_iou"] < 1),
    "n": lambda t: t["iou"] >= 0,
    "n_target": lambda t: t["target_area"] > 0,
    "n_no_target": lambda t: t["target_area"] == 0,
    "n_failed": lambda t: t["kind"].isin([kinds.UNPARSABLE, kinds.FAILED, kinds.MISSING]),
    "policy": lambda t: t["iou"] >= 0,
}
_THRESHOLDS = np.round(np.arange(0.5, 1.0, 0.05), 2)
_BINS = 20
_SIZES = (0.0025, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0)


class ReferringEvaluation(Panel):
    """Everything is computed from the stored tables of the chosen runs; every mark shows its samples."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="referring_evaluation",
            label="Referring evaluation",
            icon="troubleshoot",
            category=Categories.ANALYZE,
            help_markdown="Figures of referring segmentation. Click a bar, point or row to see its samples.",
        )

    def on_load(self, ctx) -> None:
        self._refresh(ctx)

    def on_change_dataset(self, ctx) -> None:
        """Runs that the other dataset does not have are no longer chosen; a dataset that is reloaded keeps them."""
        self._refresh(ctx)

    def on_change_view(self, ctx) -> None:
        if ctx.dataset is not None and not _runs.is_shown_by_panel(ctx):
            self._refresh(ctx)

    @_runs.safely
    def choose_run(self, ctx) -> None:
        """Another run stands first. The App also sends what is chosen already, when it draws the choice."""
        first, *others = self._chosen(ctx)
        value = ctx.params.get("value")
        if value and value != first:
            _runs.remember(ctx, runs=[value, *(key for key in others if key != value)])
            self._refresh(ctx)

    @_runs.safely
    def compare_with(self, ctx) -> None:
        """A further run stands beside the first."""
        chosen, value = self._chosen(ctx), ctx.params.get("value")
        if value and value not in chosen:
            _runs.remember(ctx, runs=[*chosen, value])
            self._refresh(ctx)

    @_runs.safely
    def alone(self, ctx) -> None:
        """Only the first run stays."""
        _runs.remember(ctx, runs=self._chosen(ctx)[:1])
        self._refresh(ctx)

    def reload(self, ctx) -> None:
        """Look for runs that were made since, and forget the view that was shown."""
        _runs.remember(ctx, shown=None)
        self._refresh(ctx)

    def _chosen(self, ctx) -> list[str]:
        existing = _runs.keys(ctx.dataset)
        chosen = [key for key in _runs.memory(ctx).get("runs") or [] if key in existing]
        return chosen or existing[:1]

    def _refresh(self, ctx) -> None:
        _runs.remember(ctx, problem=None)
        if not _runs.keys(ctx.dataset):
            return
        if proposed := _runs.proposed(ctx):
            _runs.remember(ctx, runs=proposed)
        try:
            self._compute(ctx)
        except Exception as error:  # noqa: BLE001 - a panel shows its error instead of vanishing
            _runs.remember(ctx, problem=f"The runs could not be shown: {error}")

    def _compute(self, ctx) -> None:
        chosen = self._chosen(ctx)
        _runs.remember(ctx, runs=chosen, drawn=_runs.drawn_view(ctx))
        rows_of, tables, figures = {}, {}, {}
        for key in chosen:
            results = _runs.load_results(ctx.dataset, key)
            rows_of[key] = _runs.rows_in_view(ctx, results)
            tables[key] = results.table[rows_of[key]]
            figures[key] = results.figures(rows_of[key])
        _runs.remember(ctx, scope=" ".join(f"{key}: {_runs.scope(rows)}" for key, rows in rows_of.items()))
        _runs.put(ctx, "figures", _figure_rows(figures, tables))
        _runs.put(ctx, "plots.histogram", [_histogram(key, table) for key, table in tables.items()])
        _runs.put(ctx, "plots.precision", [_precision(key, table) for key, table in tables.items()])
        _runs.put(ctx, "plots.sizes", [_by_size(key, table) for key, table in tables.items()])
        _runs.put(ctx, "plots.confusion", [_confusion(tables[chosen[0]])])
        first, *others = chosen
        differences: list[tuple[str, list[dict[str, str]]]] = []
        for key in others:
            problem = _runs.comparable(*(_runs.load_results(ctx.dataset, name) for name in (first, key)))
            if problem:
                differences.append((f"{key} is not compared with {first}: {problem}.", []))
            else:
                differences.append(_difference(first, tables[first], key, tables[key]))
        _runs.remember(ctx, difference=" ".join(text for text, _ in differences))
        rows = [(key, row) for key, (_, rows) in zip(others, differences, strict=True) for row in rows]
        _runs.remember(ctx, flipped=[key for key, _ in rows])
        _runs.put(ctx, "flips", [row for _, row in rows])

    def _drawn(self, ctx) -> dict[str, pd.DataFrame]:
        """The tables that the marks on the screen stand for."""
        found = {key: _runs.load_results(ctx.dataset, key) for key in self._chosen(ctx)}
        return {key: results.table[_runs.drawn_rows(ctx, results)] for key, results in found.items()}

    def _clicked(self, ctx) -> tuple[pd.DataFrame, int]:
        """The table and the index within the trace that was clicked."""
        tables = list(self._drawn(ctx).values())
        return tables[int(ctx.params.get("trace_idx") or 0)], int(ctx.params.get("idx") or 0)

    @_runs.safely
    def click_histogram(self, ctx) -> None:
        table, index = self._clicked(ctx)
        _runs.show(ctx, table[_bin(table["iou"]) == index])

    @_runs.safely
    def click_precision(self, ctx) -> None:
        table, index = self._clicked(ctx)
        _runs.show(ctx, table[(table["target_area"] > 0) & (table["iou"] >= _THRESHOLDS[index])])

    @_runs.safely
    def click_sizes(self, ctx) -> None:
        table, index = self._clicked(ctx)
        _runs.show(ctx, table[_has_size(table) & (_size_bin(table) == index)])

    @_runs.safely
    def click_confusion(self, ctx) -> None:
        table, _ = self._clicked(ctx)
        meant, said = ctx.params.get("y"), ctx.params.get("x")
        chosen = (table["target_area"] > 0) == (meant == "target")
        _runs.show(ctx, table[chosen & ((table["prediction_area"] > 0) == (said == "answered"))])

    @_runs.safely
    def click_figures(self, ctx) -> None:
        """Show the expressions that keep a figure of a run from being perfect."""
        row, column = ctx.params.get("row", -1), ctx.params.get("column", 0)
        tables = list(self._drawn(ctx).values())
        if 0 <= row < len(_FIGURES) and len(tables):
            table = tables[max(0, min(column - 1, len(tables) - 1))]
            _runs.show(ctx, table[_COST[list(_FIGURES)[row]](table)])

    @_runs.safely
    def click_flips(self, ctx) -> None:
        row, flipped = ctx.params.get("row", -1), _runs.memory(ctx).get("flipped") or []
        if 0 <= row < len(flipped):
            tables = self._drawn(ctx)
            flips = comparison.compare(tables[self._chosen(ctx)[0]], tables[flipped[row]]).flips
            chosen = flips[(flips["iou_b"] > flips["iou_a"]) == (row % 2 == 0)]
            _runs.show(ctx, chosen.assign(iou=chosen["iou_b"]))

    def render(self, ctx) -> types.Property:
        panel = types.Object()
        empty = _runs.missing_step(ctx.dataset, panel)
        if empty:
            return empty
        chosen = self._chosen(ctx)
        runs = _runs.keys(ctx.dataset)
        bar = panel.h_stack("bar", gap=2, align_y="center")
        _runs.dropdown(bar, "run", "Run", runs, chosen[0], self.choose_run)
        others = ["", *(key for key in runs if key not in chosen)]
        names = {"": "add a run", **{key: f"add {key}" for key in others[1:]}}
        _runs.dropdown(bar, "compare", "Compare with", others, "", self.compare_with, names)
        if len(chosen) > 1:
            bar.btn("alone", label=f"Only {chosen[0]}", on_click=self.alone)
        bar.btn("reload", label="Reload", icon="refresh", on_click=self.reload)
        problem = _runs.memory(ctx).get("problem")
        if problem:
            panel.view("problem", types.Error(label=problem))
            return types.Property(panel, view=types.GridView(orientation="vertical", gap=2, padding=2))
        panel.str("scope", view=types.LabelValueView(read_only=True), label="Shown")
        table = types.TableView(on_click_cell=self.click_figures)
        table.add_column("figure", label="figure")
        for number, key in enumerate(chosen):
            table.add_column(f"run_{number}", label=key)
        panel.list(
            "figures", types.Object(), view=table, label="In percent, with 95 % intervals; click for what it lacks"
        )
        if _runs.memory(ctx).get("difference"):
            panel.str("difference", view=types.LabelValueView(read_only=True), label="Difference")
            flips = types.TableView(on_click_row=self.click_flips)
            flips.add_column("flip", label="crossed IoU 0.5")
            flips.add_column("n", label="expressions")
            panel.list("flips", types.Object(), view=flips)
        plots = panel.v_stack("plots", gap=1, width=100)
        for name, title, across, up, click in (
            ("histogram", "IoU of the expressions", "IoU", "expressions", self.click_histogram),
            ("precision", "Precision at IoU (targets)", "IoU threshold", "share", self.click_precision),
            ("sizes", "Mean IoU by size of the target", "share of the image", "mean IoU", self.click_sizes),
            ("confusion", f"Target or no target: {chosen[0]}", "answer", "truth", self.click_confusion),
        ):
            layout = {
                "title": {"text": title},
                "xaxis": {"title": {"text": across}},
                "yaxis": {"title": {"text": up}} | ({"autorange": "reversed"} if name == "confusion" else {}),
                "margin": {"t": 50, "b": 50, "l": 60, "r": 20},
                "showlegend": name != "confusion" and len(chosen) > 1,
            }
            plots.plot(name, layout=layout, on_click=click, config={"displayModeBar": False}, height="330px")
        return types.Property(panel, view=types.GridView(orientation="vertical", gap=2, padding=2))


def _difference(a: str, before: pd.DataFrame, b: str, after: pd.DataFrame) -> tuple[str, list[dict[str, str]]]:
    """Run B against run A in words, and the rows of its flips."""
    try:
        found = comparison.compare(before, after)
    except ValueError as error:
        return f"{b}: {error}.", []
    text = [
        f"{label} {100 * interval.value:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        for label, interval in (("cIoU", found.figures["ciou"]), ("mIoU", found.figures["miou"]))
        if interval.value is not None and interval.low is not None and interval.high is not None
    ]
    alone = (
        f" {found.only_a} and {found.only_b} expressions are in one run only." if found.only_a or found.only_b else ""
    )
    risen = found.flips["iou_b"] > found.flips["iou_a"]
    rows = [
        {"flip": f"wrong in {a}, right in {b}", "n": f"{int(risen.sum()):,}"},
        {"flip": f"right in {a}, wrong in {b}", "n": f"{int((~risen).sum()):,}"},
    ]
    words = f"{b} against {a} on {found.n:,} expressions: {', '.join(text)}; "
    return f"{words}{found.wins:,} better, {found.losses:,} worse.{alone}", rows


def _figure_rows(figures: dict[str, dict], tables: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    """A row per figure, a column per run."""
    intervals = {key: comparison.intervals(table) for key, table in tables.items()}
    rows = []
    for name, label in _FIGURES.items():
        row = {"figure": label}
        for number, key in enumerate(figures):
            value = figures[key][name]
            if name in comparison.FIGURES:
                text = _runs.percent(value, intervals[key][name].low, intervals[key][name].high)
            elif isinstance(value, int):
                text = f"{value:,}"
            else:
                text = value if isinstance(value, str) else _runs.percent(value)
            row[f"run_{number}"] = text
        rows.append(row)
    return rows


def _bin(ious: pd.Series) -> np.ndarray:
    return np.minimum((ious.to_numpy() * _BINS).astype(int), _BINS - 1)


def _histogram(key: str, table: pd.DataFrame) -> dict:
    counts = np.bincount(_bin(table["iou"]), minlength=_BINS)
    return {"type": "bar", "name": key, "x": ((np.arange(_BINS) + 0.5) / _BINS).tolist(), "y": counts.tolist()}


def _precision(key: str, table: pd.DataFrame) -> dict:
    ious = table.loc[table["target_area"] > 0, "iou"].to_numpy()
    shares = [float((ious >= threshold).mean()) if len(ious) else None for threshold in _THRESHOLDS]
    return {"type": "scatter", "mode": "lines+markers", "name": key, "x": _THRESHOLDS.tolist(), "y": shares}


def _size_bin(table: pd.DataFrame) -> np.ndarray:
    share = (table["target_area"] / np.maximum(table["image_area"], 1)).to_numpy()
    return np.searchsorted(_SIZES, share, side="left")


def _has_size(table: pd.DataFrame) -> pd.Series:
    return (table["target_area"] > 0) & (table["kind"] != kinds.FAILED)


def _by_size(key: str, table: pd.DataFrame) -> dict:
    table = table[_has_size(table)]
    bins = _size_bin(table)
    counts = np.bincount(bins, minlength=len(_SIZES))[: len(_SIZES)]
    sums = np.bincount(bins, weights=table["iou"], minlength=len(_SIZES))[: len(_SIZES)]
    lows = (0.0, *_SIZES[:-1])
    names = [f"{100 * low:g}-{100 * high:g}%" for low, high in zip(lows, _SIZES, strict=True)]
    means = [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
    return {
        "type": "bar", "name": key, "x": names, "y": means,
        "text": [f"n={count}" for count in counts], "hoverinfo": "x+y+text",
    }  # fmt: skip


def _confusion(table: pd.DataFrame) -> dict:
    target, answered = table["target_area"] > 0, table["prediction_area"] > 0
    counts = [
        [int((target & answered).sum()), int((target & ~answered).sum())],
        [int((~target & answered).sum()), int((~target & ~answered).sum())],
    ]
    return {
        "type": "heatmap",
        "x": ["answered", "nothing"],
        "y": ["target", "no target"],
        "z": counts,
        "text": counts,
        "texttemplate": "%{text}",
        "showscale": False,
        "colorscale": [[0, "rgba(86, 180, 233, 0.1)"], [1, "rgba(0, 114, 178, 1)"]],
    }
