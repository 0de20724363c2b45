"""The three pages as files, one of each kind in a folder of its own, and a browser without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, sync_playwright

from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.training_configuration import Member, TrainingConfiguration
from poleng_assets.core.monitoring.batch_report import BatchReport
from poleng_assets.core.monitoring.measurements import (
    ALL_COLUMNS,
    COMPOSITION,
    CONTACT,
    JENSEN_SHANNON,
    L_INFINITY,
    MISSING,
    RECONSTRUCTION,
    SCORE,
    BatchMeasurements,
    DriftMetric,
    Estimate,
    Trust,
)
from poleng_assets.core.monitoring.realised_performance import RealisedPerformance
from poleng_assets.core.monitoring.verdict import Judgement, Reason
from poleng_assets.core.promotion.holdout_evaluation import HoldoutEvaluation
from poleng_assets.core.reports.drift_report import render_report
from poleng_assets.core.reports.model_card import ModelCard, render_model_card
from poleng_assets.core.reports.overview import Overview, render_overview
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.core.statistics.groups import evaluate_groups
from poleng_assets.core.statistics.metrics import evaluate
from poleng_assets.core.statistics.resampling import bootstrap_intervals
from poleng_assets.study.schema import Study

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
NARROW, WIDE = 375, 1280
PAGES = ("drift_report", "overview", "model_card")


@dataclass
class Visit:
    """A page that is open, and what it complained of and asked for meanwhile."""

    page: Page
    complaints: list[str]
    requests: list[str]


class Visitor:
    """Opens a page without a network, as wide and as dark as is asked for, in place of the last one."""

    def __init__(self, tab: Page, folder: Path) -> None:
        self.tab, self.folder = tab, folder
        self.visit = Visit(tab, [], [])
        tab.on("pageerror", lambda error: self.visit.complaints.append(str(error)))
        tab.on("console", lambda said: self.visit.complaints.append(said.text))
        tab.on("request", lambda request: self.visit.requests.append(request.url))

    def open(self, name: str, width: int = WIDE, scheme: str = "light") -> Visit:
        self.visit = Visit(self.tab, [], [])
        self.tab.set_viewport_size({"width": width, "height": 800})
        self.tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        self.tab.goto((self.folder / name / "page.html").as_uri())
        return self.visit


@pytest.fixture(scope="session")
def visitor(folder: Path) -> Iterator[Visitor]:
    """One tab for all: a new one takes a browser longer than all that is asked of the page in it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: install chromium to look at the pages")
    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield Visitor(browser.new_context(offline=True).new_page(), folder)
        browser.close()


@pytest.fixture(scope="session")
def folder(study: Study, reference: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each page alone in a folder: as it is opened when it was sent by mail."""
    root = tmp_path_factory.mktemp("pages")
    for name, page in (
        ("drift_report", _report(study, reference)),
        ("overview", _overview(study, 9)),
        ("long_overview", _overview(study, 600)),
        ("model_card", _model_card(study)),
    ):
        (root / name).mkdir()
        (root / name / "page.html").write_text(page, encoding="utf-8")
    return root


def _report(study: Study, reference: pd.DataFrame) -> str:
    """A report with something of everything: an alarm, folded reasons, faults, drift and outcomes."""
    names = study.feature_names
    measured = BatchMeasurements(
        12_345, 1_500, 0.123, 0.34, (0.31, 0.37),
        metrics=(
            *(DriftMetric.compared(name, JENSEN_SHANNON, 0.4 / n, 0.1) for n, name in enumerate(names, 1)),
            *(DriftMetric.compared(name, L_INFINITY, 0.2 / n, 0.05) for n, name in enumerate(names, 1)),
            DriftMetric.compared(SCORE, JENSEN_SHANNON, 0.2, 0.1),
            DriftMetric.compared(CONTACT, JENSEN_SHANNON, 0.01, 0.1),
            DriftMetric.compared(names[3], MISSING, 0.25, 0.1),
            DriftMetric.compared(names[4], MISSING, 0.01, 0.1),
            DriftMetric.compared(names[0], COMPOSITION, 0.3, 0.1),
            DriftMetric.compared(ALL_COLUMNS, RECONSTRUCTION, 1.5, 1.2, 1.1),
        ),
        estimates=(Estimate("auc", 0.71, 0.68, 0.74, 0.75), Estimate("recall", 0.4, 0.35, 0.45, 0.5)),
        trust=Trust(False, "the answers to some questions shifted"),
        importance={name: 1 / len(names) for name in names},
    )  # fmt: skip
    reasons = (
        Reason("estimated_loss", "the model is expected to rank people worse", acts=True),
        *(Reason(f"shift:{name}", f"the answers to {name} shifted") for name in names[:9]),
    )
    report = BatchReport(
        "a_batch_with_a_very_long_name_without_any_place_to_break_it_2025_03",
        3,
        reference,
        reference.sample(frac=0.7, random_state=1),
        measured,
        Judgement("drifted", reasons, tuple(names[:4]), alarm=True),
        RealisedPerformance((Estimate("auc", 0.7, 0.69, 0.71, 0.75),), 4_000, 12_345),
    )
    return render_report(study, report)


def _overview(study: Study, count: int) -> str:
    """An overview with every verdict, an open alarm, outcomes, a promotion and a rollback."""
    verdicts = ("clear", "drifted", "untrusted", "insufficient")
    reports = pd.DataFrame(
        {
            "batch": f"batch_{n:03}",
            "model_version": 1 + n // 4 % 2,
            "verdict": verdicts[n % 4],
            "rows": 1_000 + n,
            "reported_at": START + timedelta(days=n),
            "estimated_auc": 0.78,
            "reference_auc": 0.79,
            "outside_support": 0.0,
            "flagged_share": 0.2 + n % 7 / 100,
            "reasons": "the first reason\nthe second reason",
            "held": verdicts[n % 4] == "untrusted",
            "alarm": n % 8 == 6,
            "trusted": n % 4 == 0,
            "current": n % 5 != 1,
            "released": n % 8 == 2,
            "list_erased": "",
        }
        for n in range(count)
    )
    key = reports[["batch", "model_version"]]
    performance = pd.concat(
        key.assign(kind=kind, metric="auc", value=value, lower=value - 0.02, upper=value + 0.03)
        for kind, value in (("estimated", 0.78), ("realised", 0.76))
    )
    alerts = key.iloc[1::2].assign(column_name=study.feature_names[0], method=JENSEN_SHANNON)
    alerts = pd.concat([alerts, alerts.assign(method=L_INFINITY), alerts.assign(column_name=SCORE)])
    promotions = pd.DataFrame(
        [(START, "promote", 1, "why"), (START + timedelta(days=3.5), "promote", 2, "why"),
         (START + timedelta(days=6.5), "rollback", 1, "why")],
        columns=["decided_at", "kind", "version", "reason"],
    )  # fmt: skip
    story = Overview(reports, performance, alerts, promotions)
    return render_overview(study, story, START + timedelta(days=900))


def _model_card(study: Study) -> str:
    random = np.random.default_rng(6)
    score = random.random(900)
    target, contact = (random.random(900) < score).astype(int), score >= 0.5
    groups = {name: random.choice(["these people", "those people"], 900) for name in study.protected}
    return render_model_card(
        ModelCard(
            study=study,
            version=7,
            trained_at=START,
            training_data_hash="f00d" * 16,
            evaluation=HoldoutEvaluation(
                reference=pd.DataFrame({study.target.name: target, "score": score, "contact": contact}),
                figures=evaluate(target, score, contact),
                intervals=bootstrap_intervals(target, score, contact, repeats=20),
                on_training={},
                groups=evaluate_groups(target, score, contact, groups, 100),
                populations=evaluate_groups(
                    target, score, contact, {"country": groups[study.protected[0]]}, 5
                ),
                importance={name: 1 / n for n, name in enumerate(study.feature_names, 1)},
                rows={"spring": (5_000, 800), "autumn": (700, 100)},
            ),
            candidates=pd.DataFrame(
                {"candidate": ["chosen", "forest 2"], "log_loss": [0.55, None], "seconds": [3, 12],
                 "parameters": ["a long list of parameters " * 4, ""]}
            ),
            configuration=TrainingConfiguration(
                (Member("xgboost", {"max_depth": 4}, 0.6), Member("logistic", {"C": 0.05}, 0.4)),
                Calibration(),
                ContactRule(0.5),
            ),
            dagster_run_id="run-of-dagster",
            mlflow_run_id="run-of-mlflow",
        )
    )  # fmt: skip
