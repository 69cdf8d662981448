"""Tables, figures and one self-contained page; see README.md beside this file."""

from jaxlora.report import fidelity as fidelity
from jaxlora.report import figures as figures
from jaxlora.report import leaderboard as leaderboard
from jaxlora.report import page as page
from jaxlora.report import route_map as route_map
from jaxlora.report import tables as tables
from jaxlora.report.grid import Grid as Grid
from jaxlora.report.grid import markdown_table as markdown_table
from jaxlora.report.grid import rich_table as rich_table
