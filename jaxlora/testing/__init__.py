"""Batteries that a method of your own can be put through, as ours are."""

from jaxlora.testing.gates import GateBattery as GateBattery
from jaxlora.testing.gates import check_gate as check_gate
from jaxlora.testing.gates import gate_violations as gate_violations
from jaxlora.testing.libraries import small_library as small_library
from jaxlora.testing.merge_battery import Battery as Battery
from jaxlora.testing.merges import check_merge as check_merge
from jaxlora.testing.merges import violations as violations
