"""Measurements, checks and plans in a notebook: the tables that the command prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from empirical.checks.checking import ModelCheck
from empirical.plans.plan import ModelPlan
from empirical.report.graph_checks import checks_table
from empirical.report.measured_tables import as_table
from empirical.report.model_checks import coordinates_table
from empirical.verify.graph_verification import GraphVerification
from empirical.verify.verification import Verification
from scaling.report.tables import Format, Table, render


def shown(result: Any, style: str) -> str:
    """A result as ``html``, ``latex`` or ``text``."""
    tables: dict[type, Callable[..., Table]] = {
        ModelCheck: coordinates_table,
        ModelPlan: ModelPlan.table,
        GraphVerification: checks_table,
        Verification: as_table,
    }
    return render(tables[type(result)](result), Format(style))
