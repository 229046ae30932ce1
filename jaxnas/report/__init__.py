"""Run folders in, one self-contained HTML page out."""

from jaxnas.report.page import report as report
